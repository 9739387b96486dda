"""Embedding and loss of which each rank of a group holds some rows of the vocabulary."""

from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor
from torch.nn import functional

from megasbp.kernels.cross_entropy import check_options, nats_of
from megasbp.kernels.linear_cross_entropy import labelled_tokens
from megasbp.kernels.linear_cross_entropy_part import part_gradients, part_statistics
from megasbp.model.layers import Embedding
from megasbp.parallel.sequence import gather_sequence, sum_to_sequence


class VocabularyEmbedding(Embedding):
    """Rows of a table divided among the ranks; the result is divided along the sequence.

    Attributes:
        weight: DTensor [vocabulary, width], sharded by rows over the group.
    """

    def __init__(self, weight: DTensor, group: dist.ProcessGroup) -> None:
        nn.Module.__init__(self)
        self.weight = nn.Parameter(weight)
        self._group = group

    def forward(self, tokens: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """int32 or int64 [B, S] -> `dtype` [B, S / T, D]."""
        assert isinstance(self.weight, DTensor)
        rows = self.weight.to_local()
        places = tokens - self._group.rank() * len(rows)
        here = (places >= 0) & (places < len(rows))
        embedded = functional.embedding(torch.where(here, places, 0), rows).to(dtype)
        # One rank adds the row, the others zeros, so the sum is exact.
        return sum_to_sequence(embedded * here[..., None], self._group)


class VocabularyLoss:
    """`linear_cross_entropy` of states divided along the sequence and a weight divided by rows.

    Every rank of the group gets the whole loss.
    """

    def __init__(self, group: dist.ProcessGroup) -> None:
        self._group = group

    def __call__(
        self,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        labels: torch.Tensor,
        ignore_index: int,
        reduction: Literal["sum", "none"],
        z_loss: float = 0.0,
    ) -> torch.Tensor:
        """Nats; see `linear_cross_entropy`.

        Args:
            hidden: [B, S / T, D].
            weight: DTensor [V, D], sharded by rows over the group.
            labels: [B, S].
        """
        assert isinstance(weight, DTensor)
        check_options(z_loss, reduction)
        hidden = gather_sequence(hidden, self._group)
        rows = weight.to_local()
        hidden_ND, labels_N, labelled = labelled_tokens(hidden, rows, len(weight), labels, ignore_index)
        nats = _Nats.apply(hidden_ND, rows, labels_N, z_loss, self._group)
        if reduction == "sum":
            return nats.sum()
        return nats.new_zeros(labels.numel()).index_copy(0, labelled, nats).view(labels.shape)


class _Nats(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        rows: torch.Tensor,
        labels: torch.Tensor,
        z_loss: float,
        group: dist.ProcessGroup,
    ) -> torch.Tensor:
        ctx.first, ctx.z_loss = group.rank() * len(rows), z_loss
        maximum, total, label_logit = part_statistics(hidden, rows, labels, ctx.first)
        largest = maximum.clone()
        dist.all_reduce(largest, dist.ReduceOp.MAX, group=group)
        sums = torch.stack((total * (maximum - largest).exp(), label_logit))
        dist.all_reduce(sums, group=group)
        total, label_logit = sums
        ctx.save_for_backward(hidden, rows, labels, largest, total)
        return nats_of(largest, total, label_logit, z_loss)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None, None, None]:
        hidden, rows, labels, largest, total = ctx.saved_tensors
        grad_hidden, grad_rows = part_gradients(
            hidden, rows, labels, ctx.first, largest, total, grads[0], ctx.z_loss
        )
        return grad_hidden, grad_rows, None, None, None
