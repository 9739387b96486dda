"""What launching needs to know of the device."""

import functools

import torch
import triton


def warps(elements: int) -> int:
    """Warps of a program that works on so many elements at a time: 16 a thread, two 16-byte loads of bf16."""
    return min(16, max(1, triton.next_power_of_2(elements) // 512))


def processors(tensor: torch.Tensor) -> int:
    """Multiprocessors of a tensor's device; 2 where Triton's interpreter runs, on a CPU."""
    if tensor.device.type == "cpu":
        return 2
    return _processors(tensor.device.index or 0)


@functools.cache
def _processors(device: int) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count
