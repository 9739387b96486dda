"""Mistakes that a parallel trainer may make, made on purpose: the parity matrix must catch each."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from unittest import mock

import torch
import torch.distributed as dist
from layouts import Case
from torch import nn
from torch.distributed.distributed_c10d import _resolve_process_group
from torch.distributed.pipelining import stage
from torch.distributed.tensor import DTensor

from megasbp.parallel import asynchronous, context, sequence, tensor, vocabulary
from megasbp.parallel.config import ParallelConfig
from megasbp.parallel.stage import AccumulatingStage
from megasbp.parallel.tied import TiedTable
from megasbp.training import optimizer


def norm_gradients_of_one_rank() -> AbstractContextManager[object]:
    """The gradient of a norm's weight is taken for the whole one, though each rank has seen a part."""

    def local(weight: DTensor, gradient: object = None) -> torch.Tensor:
        return weight.to_local()

    return mock.patch.object(tensor, "_local", local)


def normalizer_of_one_part() -> AbstractContextManager[object]:
    """The sums of the loss are not added up over the parts of the vocabulary."""

    def only_maxima(values: torch.Tensor, *arguments: object, **options: object) -> None:
        if arguments:
            dist.all_reduce(values, *arguments, **options)

    mutated = mock.Mock(wraps=dist)
    mutated.all_reduce = only_maxima
    mutated.ReduceOp = dist.ReduceOp
    return mock.patch.object(vocabulary, "dist", mutated)


def gathered_gradients_not_summed() -> AbstractContextManager[object]:
    """Behind a gathered sequence each rank keeps its own gradient of its tokens, without the others'."""

    def backward(ctx: object, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        return grads[0].chunk(ctx.group.size(), 1)[ctx.group.rank()].contiguous(), None

    return mock.patch.object(sequence._Gather, "backward", staticmethod(backward))


def overlapped_sums_of_one_rank() -> AbstractContextManager[object]:
    """A product that is sent while it is computed comes back without the other ranks' parts."""

    def unsummed(x: torch.Tensor, weight: torch.Tensor, reduction: str, dim: int, name: str) -> torch.Tensor:
        group = _resolve_process_group(name)
        return (x @ weight).chunk(group.size(), dim)[group.rank()].contiguous()

    return mock.patch.object(asynchronous, "_multiply_and_sum", unsummed)


def positions_shifted() -> AbstractContextManager[object]:
    """Tokens stand one place from where they belong in the gathered sequence."""
    gathered = sequence._gathered
    return mock.patch.object(sequence, "_gathered", lambda x, group: gathered(x, group).roll(1, 1))


def tied_gradient_counted_twice() -> AbstractContextManager[object]:
    """The loss gives the weight it shares with the embedding twice its gradient."""
    gradients = vocabulary.part_gradients

    def doubled(*arguments: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        of_hidden, of_weight = gradients(*arguments)
        return of_hidden, 2 * of_weight

    return mock.patch.object(vocabulary, "part_gradients", doubled)


def queries_at_other_places() -> AbstractContextManager[object]:
    """A rank takes its queries for tokens that stand elsewhere in the row."""
    at = context.attention_at

    def moved(
        q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, places: torch.Tensor, *others: object
    ) -> torch.Tensor:
        return at(q, k, v, places.roll(1), *others)

    return mock.patch.object(context, "attention_at", moved)


def tied_gradients_not_added() -> AbstractContextManager[object]:
    """First and last stage of a pipeline each keep their own gradient of the table that they share."""
    return mock.patch.object(TiedTable, "add_gradients", lambda self: None)


def copy_counted_in_the_norm() -> AbstractContextManager[object]:
    """The gradient norm counts the shared table on both stages."""
    made = optimizer.AdamW.__init__

    def counting(self: optimizer.AdamW, groups: list[dict[str, object]], **options: object) -> None:
        made(self, [{**group, "copy": False} for group in groups], **options)

    return mock.patch.object(optimizer.AdamW, "__init__", counting)


def gradients_divided_by_micro_batches() -> AbstractContextManager[object]:
    """A pipeline takes the mean over the micro-batches, whose losses are shares of one sum."""
    reduce = AccumulatingStage.perform_reduce_grad
    return mock.patch.object(AccumulatingStage, "perform_reduce_grad", lambda self, factor: reduce(self, 2))


def deferred_gradients_not_deferred() -> AbstractContextManager[object]:
    """The pass for a stage's inputs adds to the gradients of the weights, which a later pass does as well."""
    of_inputs = stage.stage_backward_input

    def both(
        outputs: list[torch.Tensor],
        gradients: list[torch.Tensor] | None,
        inputs: list[torch.Tensor],
        weights: Iterator[nn.Parameter],
    ) -> object:
        weights = list(weights)
        given = None if gradients is None else list(gradients)
        torch.autograd.backward(outputs, given, retain_graph=True, inputs=weights)
        return of_inputs(outputs, gradients, inputs, iter(weights))

    return mock.patch.object(stage, "stage_backward_input", both)


_TENSOR, _CONTEXT = Case(ParallelConfig(tensor=2)), Case(ParallelConfig(context=4))
_PIPELINE = Case(ParallelConfig(pipeline=2, tensor=2), "tied, 5 layers")
_DEFERRING = Case(ParallelConfig(pipeline=2, schedule="zbv_zero_bubble"), "tied, 5 layers")
# Where each mistake is made.
MUTATIONS = {
    norm_gradients_of_one_rank: _TENSOR,
    normalizer_of_one_part: _TENSOR,
    gathered_gradients_not_summed: _TENSOR,
    overlapped_sums_of_one_rank: Case(ParallelConfig(tensor=2, asynchronous_tensor=True)),
    positions_shifted: _TENSOR,
    tied_gradient_counted_twice: _TENSOR,
    queries_at_other_places: _CONTEXT,
    tied_gradients_not_added: _PIPELINE,
    copy_counted_in_the_norm: _PIPELINE,
    gradients_divided_by_micro_batches: _PIPELINE,
    deferred_gradients_not_deferred: _DEFERRING,
}
