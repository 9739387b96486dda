"""Who computes: C++ on a CPU, Triton on a GPU, and else the PyTorch reference beside each kernel."""

import importlib.util
import warnings
from typing import Literal

import torch

from . import cpu

Route = Literal["cpp", "triton", "torch"]

# Looked up once: torch.compile cannot trace it.
_HAS_TRITON = importlib.util.find_spec("triton") is not None
if not _HAS_TRITON and torch.cuda.is_available():
    warnings.warn(
        "triton is not installed: this GPU runs the PyTorch references of the kernels, at a fraction of the "
        "speed; pip install triton, in the version that your torch asks for",
        stacklevel=2,
    )
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
    return "triton" if _HAS_TRITON else "torch"
