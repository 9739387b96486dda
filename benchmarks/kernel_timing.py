"""Times of device code, and what the device can do at most."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

# Written between two calls, so that none finds its inputs in the cache; more than any GPU's holds.
_CACHE_BYTES = 2**28
# Cycles a second that no GPU's clock exceeds.
_FASTEST_CLOCK = 3e9
_SECONDS_OF_CALLS, _FEWEST_CALLS, _MOST_CALLS = 0.1, 5, 50


def seconds(call: Callable[[], Any], device: str) -> float:
    """Median time of a call; on a GPU by its own clock, with a cold cache before every call."""
    if device == "cuda":
        return _device_seconds(call)
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _device_seconds(call: Callable[[], Any]) -> float:
    """What a GPU takes when its host is ahead of it, as in training.

    A host that takes longer to launch a kernel than the GPU to run it would be timed otherwise, on all sides
    alike: each call is launched while the GPU still waits.
    """
    for _ in range(3):
        call()
    torch.cuda.synchronize()
    launched = time.perf_counter()
    call()
    on_host = time.perf_counter() - launched
    torch.cuda.synchronize()
    whole = time.perf_counter() - launched
    cache = torch.empty(_CACHE_BYTES, dtype=torch.uint8, device="cuda")
    calls = int(min(_MOST_CALLS, max(_FEWEST_CALLS, _SECONDS_OF_CALLS / whole)))
    events = [tuple(torch.cuda.Event(enable_timing=True) for _ in range(2)) for _ in range(calls)]
    for begin, end in events:
        cache.zero_()
        torch.cuda._sleep(int(2 * on_host * _FASTEST_CLOCK))
        begin.record()
        call()
        end.record()
    torch.cuda.synchronize()
    return statistics.median(begin.elapsed_time(end) for begin, end in events) / 1e3


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
