"""Tensor and sequence parallelism: each rank of a group holds some heads, some of the feed-forward layer's
inner width and some rows of the vocabulary, and between the blocks some tokens of each row.

Shoeybi et al., "Megatron-LM", arXiv 1909.08053; Korthikanti et al., arXiv 2205.05198. A block gathers the
sequence before its attention and before its feed-forward layer, and sums and divides it again behind them.
The model's forward passes are as they were: its layers are replaced by those of this file.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, Partial, Placement, Replicate, Shard

from megasbp.model.layers import Linear, RMSNorm
from megasbp.model.transformer import Block, Transformer
from megasbp.parallel.asynchronous import multiply_and_sum, multiply_gathered
from megasbp.parallel.sequence import gather_sequence, sum_to_sequence
from megasbp.parallel.vocabulary import VocabularyEmbedding, VocabularyLoss

_ATTENTION, _FEED_FORWARD = ("query", "key", "value"), ("gate", "up")


def apply_tensor_parallel(model: Transformer, mesh: DeviceMesh, asynchronous: bool = False) -> None:
    """Divides a model among the ranks of a one-dimensional mesh, in place.

    Its parameters become DTensors of that mesh; `forward` then needs labels, for nobody holds all logits.

    Args:
        model: whole and equal on every rank; heads, kv_heads, feed_forward and vocabulary_size are multiples
            of the ranks, and so are the sequences it is called with.
        asynchronous: computes while the sequence is on its way; see `asynchronous_problem`.
    """
    group = mesh.get_group()
    column, row = (MultipliedLinear, AsynchronousRowLinear) if asynchronous else (ColumnLinear, RowLinear)
    for block in model.blocks.values():
        assert isinstance(block, Block)
        for layer, names in ((block.attention, _ATTENTION), (block.feed_forward, _FEED_FORWARD)):
            _replace(layer, names, column, mesh)
            hook = _multiplying(layer, names, group) if asynchronous else _gathering(group)
            layer.register_forward_pre_hook(hook)
        _replace(block.attention, ("output",), row, mesh)
        _replace(block.feed_forward, ("down",), row, mesh)
        _replace(block, ("attention_norm", "feed_forward_norm"), PartialNorm, mesh)
        if block.attention.query_norm is not None:
            _replace(block.attention, ("query_norm", "key_norm"), PartialNorm, mesh)
    _replace(model, ("norm",), PartialNorm, mesh)
    model.embedding = VocabularyEmbedding(_divided(model.embedding.weight, mesh, Shard(0)), group)
    if model.output is not None:
        # Only the loss reads it.
        _replace(model, ("output",), ColumnLinear, mesh)
    model.loss = VocabularyLoss(group)


class ColumnLinear(Linear):
    """The whole sequence to this rank's part of the outputs; weight sharded by rows."""

    def __init__(self, whole: Linear, mesh: DeviceMesh) -> None:
        nn.Module.__init__(self)
        self.weight = nn.Parameter(_divided(whole.weight, mesh, Shard(0)))
        self.product = whole.product

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, S, inputs] -> [B, S, outputs / T]."""
        return self.product(x, _local(self.weight).to(x.dtype))


class RowLinear(Linear):
    """This rank's part of the inputs to its tokens of the outputs; weight sharded by columns."""

    def __init__(self, whole: Linear, mesh: DeviceMesh) -> None:
        nn.Module.__init__(self)
        self.weight = nn.Parameter(_divided(whole.weight, mesh, Shard(1)))
        self.product = whole.product
        self._group = mesh.get_group()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, S, inputs / T] -> [B, S / T, outputs]."""
        return sum_to_sequence(self.product(x, _local(self.weight).to(x.dtype)), self._group)


class MultipliedLinear(ColumnLinear):
    """One of several `ColumnLinear` of the same inputs, whose products are made together before it is called.

    Attributes:
        place: of its product among them.
    """

    place: int

    def forward(self, products: tuple[torch.Tensor, ...]) -> torch.Tensor:  # type: ignore[override]
        """Of [B, S, outputs / T] each."""
        return products[self.place]


class AsynchronousRowLinear(RowLinear):
    """As `RowLinear`; what is summed is sent while the rest of it is computed."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, S, inputs / T] -> [B, S / T, outputs]."""
        return multiply_and_sum(x, _local(self.weight).to(x.dtype), self._group)


class PartialNorm(RMSNorm):
    """A norm of this rank's tokens, or of its heads; its weight's gradient is summed over the ranks."""

    def __init__(self, whole: RMSNorm, mesh: DeviceMesh) -> None:
        nn.Module.__init__(self)
        self.weight = nn.Parameter(_divided(whole.weight, mesh, Replicate()))
        self.epsilon = whole.epsilon

    @property
    def factors(self) -> torch.Tensor:
        """This rank's copy of the weight."""
        return _local(self.weight, Partial())


def sum_norms_in_fp32(module: FSDPModule) -> None:
    """Has FSDP2 sum what ranks of the tensor axis add to the gradient of a norm in fp32 at least, in place.

    By itself it sums in the type in which it holds gradients, bf16 where a step has one micro-batch.
    """
    group = module._get_fsdp_state()._fsdp_param_group
    for parameter in group.fsdp_params if group is not None else ():
        parameter._get_grad_inner_tensor = partial(_summed, parameter._get_grad_inner_tensor)  # type: ignore[method-assign]


def _summed(sum_: Callable[[torch.Tensor], torch.Tensor], gradient: torch.Tensor) -> torch.Tensor:
    """This rank's part of a gradient, in its type."""
    if not isinstance(gradient, DTensor) or not any(part.is_partial() for part in gradient.placements):
        return sum_(gradient)
    wide = torch.promote_types(gradient.dtype, torch.float32)
    return sum_(gradient.to(wide)).to(gradient.dtype)


def _replace(parent: nn.Module, names: tuple[str, ...], kind: Any, mesh: DeviceMesh) -> None:
    for name in names:
        setattr(parent, name, kind(getattr(parent, name), mesh))


def _divided(weight: torch.Tensor, mesh: DeviceMesh, placement: Placement) -> DTensor:
    """This rank's part of a weight that all ranks hold whole."""
    part = weight.detach()
    if isinstance(placement, Shard):
        part = part.chunk(mesh.size(), placement.dim)[mesh.get_local_rank()]
    return DTensor.from_local(
        part.clone(memory_format=torch.contiguous_format), mesh, [placement], run_check=False
    )


def _local(weight: torch.Tensor, gradient: Placement | None = None) -> torch.Tensor:
    """This rank's part; `gradient` says what each rank's gradient is of it, where that is not the same."""
    assert isinstance(weight, DTensor)
    return weight.to_local(grad_placements=None if gradient is None else [gradient])


def _gathering(group: dist.ProcessGroup) -> Any:
    def gather(module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        x, *others = arguments
        return gather_sequence(x, group), *others

    return gather


def _multiplying(layer: nn.Module, names: tuple[str, ...], group: dist.ProcessGroup) -> Any:
    """Gives a layer, in place of its inputs, their products with those of its parts that have these names."""
    parts: list[MultipliedLinear] = [getattr(layer, name) for name in names]
    for place, part in enumerate(parts):
        part.place = place

    def multiply(module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        x, *others = arguments
        weights = [_local(part.weight).to(x.dtype) for part in parts]
        return multiply_gathered(x, weights, group), *others

    return multiply
