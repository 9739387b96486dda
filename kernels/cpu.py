"""The kernels of a CPU, in C++ (csrc/kernels): which tensors they take, and how those are handed over.

They take fp32 and bf16, on x86 from AVX2 on. Every other type, device and processor runs the PyTorch code
beside, which is their reference; so does torch.compile, which cannot look into C++ but fuses that code.
"""

import platform
from typing import Any

import torch

__all__ = ["address", "cpp", "has_head_dim", "takes"]

_TYPES = (torch.float32, torch.bfloat16)
# Others, such as fake tensors, have no memory of their own.
_PLAIN = (torch.Tensor, torch.nn.Parameter)


def _load() -> Any:
    """megasbp.kernels._cpu, or None on a processor that lacks its instructions."""
    if platform.machine() in ("x86_64", "AMD64") and torch.backends.cpu.get_cpu_capability() == "DEFAULT":
        return None
    from . import _cpu

    return _cpu


cpp = _load()


def takes(*tensors: torch.Tensor) -> bool:
    """Whether these tensors go to C++: plain ones on the CPU, all fp32 or all bf16."""
    dtype = tensors[0].dtype
    if cpp is None or dtype not in _TYPES or torch.compiler.is_compiling():
        return False
    return all(x.device.type == "cpu" and x.dtype == dtype and type(x) in _PLAIN for x in tensors)


def has_head_dim(head_dim: int) -> bool:
    """Whether attention of this head dimension has a kernel."""
    return cpp is not None and head_dim in cpp.head_dims


def address(tensor: torch.Tensor) -> int:
    """Where the numbers of a tensor begin.

    Raises:
        ValueError: they do not stand one after the other.
    """
    if not tensor.is_contiguous():
        raise ValueError(
            f"a tensor of shape {tuple(tensor.shape)} has strides {tensor.stride()}; make it contiguous"
        )
    return tensor.data_ptr()
