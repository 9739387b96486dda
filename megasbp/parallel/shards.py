"""What a rank holds of tensors that are spread over ranks."""

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from megasbp.model.config import ModelConfig
from megasbp.model.init import fill


def local_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """This rank's part of a tensor, sharing its memory; a plain tensor as it is."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def square_sum(tensors: list[torch.Tensor]) -> torch.Tensor:
    """This rank's contribution to the sum of squares over whole tensors, float64 scalar.

    Summed over all ranks it counts every element once: an element that several ranks hold is divided among
    them.

    Args:
        tensors: at least one.
    """
    groups: dict[int, list[torch.Tensor]] = {}
    for tensor in tensors:
        copies = 1
        if isinstance(tensor, DTensor):
            for axis, placement in enumerate(tensor.placements):
                assert not placement.is_partial(), "gradients are reduced before their norm is taken"
                copies *= tensor.device_mesh.size(axis) if placement.is_replicate() else 1
        groups.setdefault(copies, []).append(local_tensor(tensor))
    # fp32 squares overflow from a norm of 2e19 on; a step that large is still finite.
    sums = [
        nn.utils.get_total_norm(group).to(torch.float64).square() / copies for copies, group in groups.items()
    ]
    return torch.stack(sums).sum()


def initialize_shards(model: nn.Module, config: ModelConfig, seed: int) -> None:
    """Fills this rank's parts of a model's parameters with what `initialize` gives the whole ones.

    Args:
        model: its `named_parameters` have the names of the whole model.
    """
    for name, parameter in model.named_parameters():
        shape, offset = tuple(parameter.shape), (0,) * parameter.ndim
        if isinstance(parameter, DTensor):
            _, offset = compute_local_shape_and_global_offset(
                shape, parameter.device_mesh, parameter.placements
            )
        fill(local_tensor(parameter.detach()), name, config, seed, shape, tuple(offset))
