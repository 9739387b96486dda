"""Sends every kernel one way, whatever the device."""

import importlib
import pkgutil
from types import ModuleType

import pytest
import torch

import megasbp.kernels
from megasbp.kernels import decode_attention
from megasbp.kernels.route import Route

TRITON_TYPES = (torch.float32, torch.bfloat16, torch.float16)


def routed_modules() -> list[ModuleType]:
    """The modules that ask `route` who computes."""
    names = [module.name for module in pkgutil.iter_modules(megasbp.kernels.__path__) if not module.ispkg]
    modules = [
        importlib.import_module(f"megasbp.kernels.{name}") for name in names if name not in ("_cpu", "route")
    ]
    return [module for module in modules if hasattr(module, "route")]


def send_all(patch: pytest.MonkeyPatch, where: Route) -> None:
    """Sends plain tensors to "torch", or those of a type that it has to "triton" and the rest to "torch"."""

    def route(*tensors: torch.Tensor) -> Route:
        fits = all(tensor.dtype in TRITON_TYPES for tensor in tensors)
        return "triton" if where == "triton" and fits else "torch"

    for module in routed_modules():
        patch.setattr(module, "route", route)
    # Which has no Triton, and asks for C++ itself.
    patch.setattr(decode_attention, "takes", lambda *tensors: False)
