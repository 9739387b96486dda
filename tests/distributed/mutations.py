"""Mistakes that a parallel trainer may make, made on purpose: the parity matrix must catch each."""

from contextlib import AbstractContextManager
from unittest import mock

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor

from megasbp.parallel import context, sequence, tensor, vocabulary


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
        q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, places: torch.Tensor, segments: object
    ) -> torch.Tensor:
        return at(q, k, v, places.roll(1), segments)

    return mock.patch.object(context, "attention_at", moved)


TENSOR_LAYOUT, CONTEXT_LAYOUT = (1, 2, 1, 2), (1, 1, 4, 1)
# Where each mistake is made.
MUTATIONS = {
    norm_gradients_of_one_rank: TENSOR_LAYOUT,
    normalizer_of_one_part: TENSOR_LAYOUT,
    gathered_gradients_not_summed: TENSOR_LAYOUT,
    positions_shifted: TENSOR_LAYOUT,
    tied_gradient_counted_twice: TENSOR_LAYOUT,
    queries_at_other_places: CONTEXT_LAYOUT,
}
