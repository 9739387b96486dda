"""Who computes: C++ on a CPU, Triton on a GPU, and else the PyTorch reference beside each kernel."""

import functools
import importlib.util
import warnings
from typing import Literal

import torch

from . import cpu

Route = Literal["cpp", "triton", "torch"]

_TRITON_TYPES = (torch.float32, torch.bfloat16, torch.float16)


def route(*tensors: torch.Tensor) -> Route:
    """Where these tensors go, which have one type, or else go to PyTorch.

    C++ takes fp32 and bf16 on a CPU that has its instructions, Triton fp32, bf16 and fp16 on a GPU. PyTorch
    takes all the rest, float64 above all.
    """
    device, dtype = tensors[0].device.type, tensors[0].dtype
    if device == "cpu":
        return "cpp" if cpu.takes(*tensors) else "torch"
    if device != "cuda" or dtype not in _TRITON_TYPES or any(x.dtype != dtype for x in tensors):
        return "torch"
    return "triton" if has_triton() else "torch"


@functools.cache
def has_triton() -> bool:
    """Whether Triton is installed; warns where it is not, for then a GPU runs the slow references."""
    found = importlib.util.find_spec("triton") is not None
    if not found:
        warnings.warn(
            "triton is not installed: a GPU runs the PyTorch references of the kernels, at a fraction of the "
            "speed; pip install triton, in the version that your torch asks for",
            stacklevel=2,
        )
    return found
