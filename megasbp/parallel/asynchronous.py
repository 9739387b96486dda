"""Tensor parallelism whose collectives are on their way while products are computed, on GPUs.

The sequence is exchanged a rank's part at a time, each multiplied as it comes, or sent as it is computed
(Wang et al., "Overlap communication with dependent computation via decomposition in large deep learning
models", ASPLOS 2023), by torch's operators on memory that the GPUs of a host reach of each other. Sums are
those of `sequence`, in another order. Shapes: as there; I inputs, O outputs of a product.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist

# Importing it defines the operators.
import torch.distributed._symmetric_memory

_gather_and_multiply = torch.ops.symm_mem.fused_all_gather_matmul.default
_multiply_and_sum = torch.ops.symm_mem.fused_matmul_reduce_scatter.default
# Products, so that selective checkpointing keeps what they give.
OPERATORS = (_gather_and_multiply, _multiply_and_sum)
_SEQUENCE = 1


def asynchronous_problem(tensor_ranks: int, device: torch.device) -> str | None:
    """Why products cannot overlap with the collectives of tensor parallelism here, and the mend; None where
    they can."""
    if tensor_ranks == 1:
        return None
    if device.type != "cuda":
        return (
            "parallel.asynchronous_tensor needs GPUs that reach each other's memory, this is a CPU; "
            "leave it out"
        )
    here = torch.cuda.device_count()
    if tensor_ranks > here:
        return (
            f"parallel.asynchronous_tensor needs the {tensor_ranks} ranks of parallel.tensor on one host, "
            f"which has {here} GPUs; set parallel.tensor to at most {here}, or leave it out"
        )
    first = device.index // tensor_ranks * tensor_ranks
    for peer in range(first, min(first + tensor_ranks, here)):
        if peer != device.index and not torch.cuda.can_device_access_peer(device, peer):
            return (
                f"parallel.asynchronous_tensor needs GPUs that reach each other's memory, but GPU "
                f"{device.index} cannot reach GPU {peer}; leave it out"
            )
    return None


# torch.compile divides a block at collectives of any kind.
@torch.compiler.disable
def multiply_gathered(
    x: torch.Tensor, weights: Sequence[torch.Tensor], group: dist.ProcessGroup
) -> tuple[torch.Tensor, ...]:
    """The products of the whole sequence, of which each rank has its tokens, with this rank's weights.

    Args:
        x: [B, S / T, I].
        weights: of x's type, [O, I] each.

    Returns:
        [B, S, O] of each weight.
    """
    outputs: tuple[torch.Tensor, ...] = _MultiplyGathered.apply(x, group, *weights)
    return outputs


@torch.compiler.disable
def multiply_and_sum(x: torch.Tensor, weight: torch.Tensor, group: dist.ProcessGroup) -> torch.Tensor:
    """The sum over the ranks of their products, of which each gets its tokens.

    Args:
        x: [B, S, I], this rank's part of the inputs.
        weight: of x's type, [O, I].

    Returns:
        [B, S / T, O].
    """
    total: torch.Tensor = _MultiplyAndSum.apply(x, weight, group)
    return total


class _MultiplyGathered(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, group: dist.ProcessGroup, *weights: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        transposed = [weight.t() for weight in weights]
        gathered, outputs = _gather_and_multiply(x, transposed, _SEQUENCE, group.group_name)
        ctx.group = group
        ctx.save_for_backward(gathered, *weights)
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        gathered, *weights = ctx.saved_tensors
        together, inner = torch.cat(grads, -1), torch.cat(weights)
        of_x = _multiply_and_sum(together, inner, "sum", _SEQUENCE, ctx.group.group_name)
        return of_x, None, *(_of_weight(grad, gathered) for grad in grads)


class _MultiplyAndSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, group: dist.ProcessGroup) -> torch.Tensor:
        ctx.group = group
        ctx.save_for_backward(x, weight)
        total: torch.Tensor = _multiply_and_sum(x, weight.t(), "sum", _SEQUENCE, group.group_name)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        x, weight = ctx.saved_tensors
        gathered, (of_x,) = _gather_and_multiply(grads[0], [weight], _SEQUENCE, ctx.group.group_name)
        return of_x, _of_weight(gathered, x), None


def _of_weight(grad: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """[B, S, O] and [B, S, I] -> [O, I]."""
    return grad.flatten(0, 1).t() @ x.flatten(0, 1)
