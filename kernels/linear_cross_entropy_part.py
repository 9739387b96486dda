"""Cross-entropy of a linear layer of which only some rows of the vocabulary are here.

Two calls, and the caller's sums over all parts between them. Neither holds the logits of all tokens: they are
computed in both, in chunks.
"""

import torch

from . import products
from .cross_entropy import cross_entropy_gradient, cross_entropy_statistics
from .linear_cross_entropy import chunks


def part_statistics(
    hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor, first: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What the loss, `nats_of`, needs of this part.

    Args:
        hidden: [N, D], any floating type, that of the matrix products; their sums are at least fp32.
        weight: [V', D], rows first to first + V' of the vocabulary.
        labels: int64 [N], of the whole vocabulary.

    Returns:
        Each [N], at least fp32: the largest logit of this part; the sum of exp(logit - that); the label's
        logit, 0 where another part holds it.
    """
    weight = weight.to(hidden.dtype)
    math = torch.promote_types(hidden.dtype, torch.float32)
    statistics = hidden.new_empty(3, len(labels), dtype=math)
    for rows in chunks(len(labels), weight):
        logits = products.wide_product(hidden[rows], weight.t())
        found = cross_entropy_statistics(logits, labels[rows], first)
        del logits  # Before the next are made.
        for whole, part in zip(statistics, found, strict=True):
            whole[rows] = part
    maximum, total, label_logit = statistics
    return maximum, total, label_logit


def part_gradients(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    labels: torch.Tensor,
    first: int,
    maximum: torch.Tensor,
    total: torch.Tensor,
    scale: torch.Tensor,
    z_loss: float = 0.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of sum(scale * nats), as far as they come from this part of the vocabulary.

    Args:
        maximum, total: [N], of the whole vocabulary: the largest logit and the sum of exp(logit - that).
        scale: [N].

    Returns:
        For hidden, [N, D] in its type, to be summed over the parts; for weight, [V', D] in its type.
    """
    weight_cast, scale = weight.to(hidden.dtype), scale.to(maximum.dtype).contiguous()
    grad_hidden = torch.empty_like(hidden)
    grad_weight = torch.zeros_like(weight, dtype=maximum.dtype)
    for rows in chunks(len(labels), weight):
        logits = products.wide_product(hidden[rows], weight_cast.t())
        gradient = cross_entropy_gradient(
            logits, labels[rows], first, maximum[rows], total[rows], scale[rows], z_loss, hidden.dtype
        )
        del logits
        torch.mm(gradient, weight_cast, out=grad_hidden[rows])
        products.add_wide_product(grad_weight, gradient.t(), hidden[rows])
        del gradient
    return grad_hidden, grad_weight.to(weight.dtype)
