"""Times of device code, and what the device can do at most."""

import time
from collections.abc import Callable
from typing import Any

import torch


def seconds(call: Callable[[], Any], device: str) -> float:
    """Median time of a call; on a GPU by its own clock, with a cold cache before every call."""
    if device == "cuda":
        from triton.testing import do_bench

        return do_bench(call, warmup=20, rep=80, return_mode="median") / 1e3
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def copy_rate(device: str) -> float:
    """Bytes read and written a second by torch's copy of a large tensor: the ceiling of what moves memory."""
    size = 2**31 if device == "cuda" else 2**27
    source, target = (torch.randint(256, (size,), dtype=torch.uint8, device=device) for _ in range(2))
    return 2 * size / min(seconds(lambda: target.copy_(source), device) for _ in range(5))


def product_rate(device: str) -> float:
    """Operations a second of torch's product of large bf16 matrices of random numbers."""
    size = 8192 if device == "cuda" else 1024
    left, right = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    return 2 * size**3 / min(seconds(lambda: left @ right, device) for _ in range(5))


def synchronise(device: str) -> None:
    """Waits for the device."""
    if device == "cuda":
        torch.cuda.synchronize()
