"""The sequence divided among the ranks of a group, and gathered where a layer reads all of it.

Shapes: B batch, S sequence, T ranks of the group, D width. Rank t of the group holds tokens
[t * S / T, (t + 1) * S / T) of each row (Korthikanti et al., "Reducing activation recomputation in large
transformer models", arXiv 2205.05198).
"""

from typing import Any

import torch
import torch.distributed as dist

# torch 2.13 has other names for them and warns of these.
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_reduce_scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


def gather_sequence(x: torch.Tensor, group: dist.ProcessGroup) -> torch.Tensor:
    """[B, S / T, D] of each rank -> [B, S, D] on every rank; gradients are summed over the ranks."""
    return _Gather.apply(x, group)


def sum_to_sequence(x: torch.Tensor, group: dist.ProcessGroup) -> torch.Tensor:
    """The sum over the ranks of their [B, S, D], of which each gets its tokens: [B, S / T, D]."""
    return _Sum.apply(x, group)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, group: dist.ProcessGroup) -> torch.Tensor:
        ctx.group = group
        return _gathered(x, group)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        return _summed(grads[0], ctx.group), None


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, group: dist.ProcessGroup) -> torch.Tensor:
        ctx.group = group
        return _summed(x, group)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        return _gathered(grads[0], ctx.group), None


def _gathered(x: torch.Tensor, group: dist.ProcessGroup) -> torch.Tensor:
    parts = x.new_empty(group.size() * x.shape[0], *x.shape[1:])
    _all_gather(parts, x.contiguous(), group=group)
    return parts.unflatten(0, (group.size(), -1)).movedim(0, 1).flatten(1, 2)


def _summed(x: torch.Tensor, group: dist.ProcessGroup) -> torch.Tensor:
    parts = x.unflatten(1, (group.size(), -1)).movedim(1, 0).flatten(0, 1)
    part = x.new_empty(x.shape[0], x.shape[1] // group.size(), *x.shape[2:])
    _reduce_scatter(part, parts, group=group)
    return part
