"""What launching needs to know of the device."""

import functools
from typing import NamedTuple

import torch
import triton


class Config(NamedTuple):
    """How a kernel is cut into programs. Chosen by a table, never by a race at run time: a race's winner, and
    with it the last bits of a result, may change from run to run.

    Attributes:
        blocks: sizes of a program's blocks; each kernel says of what.
        warps: per program.
        stages: of software pipelining.
    """

    blocks: tuple[int, ...]
    warps: int
    stages: int


def fitted(config: Config, size: int) -> tuple[int, int]:
    """Block and warps of a config of one block for rows of this size, which may be shorter than its block."""
    block = min(config.blocks[0], triton.next_power_of_2(size))
    return block, max(1, config.warps * block // config.blocks[0])


def head_block(head_dim: int) -> int:
    """Columns of a tile that holds a head: a power of two, of at least a matrix instruction's."""
    return max(16, triton.next_power_of_2(head_dim))


def processors(tensor: torch.Tensor) -> int:
    """Multiprocessors of a tensor's device; 2 where it has none, as in the interpreter."""
    return _processors(tensor.device.index or 0) if tensor.device.type == "cuda" else 2


@functools.cache
def _processors(device: int) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count


def copies_tiles(*tensors: torch.Tensor) -> bool:
    """Whether the copy engine of the device can fetch tiles of these tensors [..., E]: on Hopper and later,
    where rows are whole tiles and begin at multiples of 16 bytes."""
    row = tensors[0].shape[-1]
    if row < 16 or row != triton.next_power_of_2(row) or any(x.data_ptr() % 16 for x in tensors):
        return False
    device = tensors[0].device
    # In the interpreter too: it has both ways.
    if device.type != "cuda":
        return True
    # AMD's numbers look like NVIDIA's: gfx942 says (9, 4).
    return torch.version.hip is None and _capability(device.index or 0) >= (9, 0)


def has_room(tensor: torch.Tensor) -> bool:
    """Whether a program of the tensor's device may use 227 KiB of shared memory, as on H100, H200, B200; A100
    has 163, others of NVIDIA 99."""
    return tensor.device.type != "cuda" or _shared_memory(tensor.device.index or 0) >= 227 * 1024


@functools.cache
def _capability(device: int) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device)


@functools.cache
def _shared_memory(device: int) -> int:
    # AMD's have no such number.
    return int(getattr(torch.cuda.get_device_properties(device), "shared_memory_per_block_optin", 0))
