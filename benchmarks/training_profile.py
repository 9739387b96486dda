"""Where the time of a training step goes, by torch's profiler."""

import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

# The first kind of which a part stands in a kernel's name. Names are those of cuBLAS, cuDNN, FlashAttention,
# NCCL, torch and our kernels, on a CPU those of torch's operators.
_KINDS = {
    "communication": ("nccl", "c10d"),
    "attention": ("attention", "flash", "fmha", "sdpa"),
    "products": ("gemm", "cutlass", "nvjet", "xmma", "cublas", "aten::mm", "aten::addmm", "aten::bmm"),
    "update": ("adam", "multi_tensor", "foreach"),
    "copies": ("memcpy", "memset", "aten::copy_"),
}


def time_split(step: Callable[[], Any], device: torch.device) -> dict[str, float]:
    """Seconds of one step by kind: products, attention, update, communication, copies, pointwise, gaps.

    In a gap the device ran nothing. On a CPU there are none to see: what no operator took is "other".
    """
    cuda = device.type == "cuda"
    with profile(activities=[ProfilerActivity.CUDA if cuda else ProfilerActivity.CPU]) as recorded:
        start = time.perf_counter()
        step()
        whole = time.perf_counter() - start
    seconds: dict[str, float] = defaultdict(float)
    for event in recorded.key_averages():
        used = event.self_device_time_total if cuda else event.self_cpu_time_total
        seconds[kind(event.key)] += used / 1e6
    seconds["gaps" if cuda else "other"] = max(0.0, whole - sum(seconds.values()))
    return {name: round(value, 4) for name, value in seconds.items()}


def kind(name: str) -> str:
    """What a kernel is for, by its name."""
    lowered = name.lower()
    return next(
        (found for found, parts in _KINDS.items() if any(part in lowered for part in parts)), "pointwise"
    )
