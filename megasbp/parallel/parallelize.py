"""Spreads a model over the ranks: context and tensor parallelism, then FSDP2 on each block and the root."""

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from megasbp.model.transformer import Transformer
from megasbp.parallel.context import apply_context_parallel
from megasbp.parallel.recompute import Mode, checkpoint_activations
from megasbp.parallel.runtime import PARAMETERS, REPLICATE, TENSOR, Runtime
from megasbp.parallel.tensor import apply_tensor_parallel


def parallelize(
    model: Transformer, runtime: Runtime, compute_dtype: torch.dtype, checkpointing: Mode = "none"
) -> Transformer:
    """Moves the model to this rank's device and, with several ranks, shards it in place.

    Parameters stay fp32 and become DTensors: divided by `apply_tensor_parallel`, where the layout has tensor
    parallelism, and then sharded along dimension 0 over all other ranks. A rank's loss is that of its rows'
    tokens, or of its part of them, so gradients are summed, not averaged, and in fp32 at least.

    Args:
        model: whole and equal on every rank.
        compute_dtype: torch.float32, or torch.bfloat16, in which the parameters are then gathered too.
        checkpointing: of activations; see `checkpoint_activations`.
    """
    model.to(runtime.device)
    model.compute_dtype = compute_dtype
    checkpoint_activations(model, checkpointing)
    if runtime.mesh is None:
        return model
    if runtime.parallel.context > 1:
        assert runtime.context is not None
        apply_context_parallel(model, runtime.context)
    if runtime.tensor_ranks > 1:
        apply_tensor_parallel(model, runtime.mesh[TENSOR])
    # With one copy there is no second axis, whose all-reduces would be idle.
    data = runtime.mesh[PARAMETERS]
    if runtime.parallel.replicate > 1:
        data = runtime.mesh[REPLICATE, PARAMETERS]
    policy = MixedPrecisionPolicy(
        param_dtype=compute_dtype if compute_dtype == torch.bfloat16 else None,
        reduce_dtype=torch.promote_types(compute_dtype, torch.float32),
        # The model casts activations itself; casting fp32 inputs (rotary tables) would lose precision.
        cast_forward_inputs=False,
    )
    for module in (*model.blocks, model):
        fully_shard(module, mesh=data, mp_policy=policy)
        assert isinstance(module, FSDPModule)
        module.set_gradient_divide_factor(1.0)
        # A divide factor becomes a pre-multiplied sum, which gloo lacks, unless the plain sum is forced.
        module.set_force_sum_reduction_for_comms(True)
    return model


def begin_micro_batch(model: nn.Module, index: int, count: int) -> None:
    """Call before the forward pass of micro-batch `index` of `count` of one optimiser step.

    Parameters do not change between the micro-batches of a step: each is gathered once, kept, and given up
    in the last backward pass, which alone reduces the gradients. The whole gradients are held meanwhile
    anyway, so keeping the parameters does not change the order of memory. A single micro-batch keeps FSDP2's
    own order, in which a block's parameters live only while it runs.
    """
    if count == 1 or not isinstance(model, FSDPModule):
        return
    last = index == count - 1
    model.set_reshard_after_forward(False)
    model.set_reshard_after_backward(last)
    model.set_requires_gradient_sync(last)


def release_parameters(model: nn.Module) -> None:
    """Gives gathered parameters up after forward passes that no backward pass followed."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def local_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """This rank's part of a tensor, sharing its memory; a plain tensor as it is."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def square_sum(tensors: list[torch.Tensor]) -> torch.Tensor:
    """This rank's contribution to the sum of squares over whole tensors, float64 scalar.

    Summed over all ranks it counts every element once: an element that several ranks hold is divided among
    them.
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
