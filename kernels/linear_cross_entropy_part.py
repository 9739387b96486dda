"""Cross-entropy of a linear layer of which only some rows of the vocabulary are here.

Two calls, and the caller's sums over all parts between them. Neither holds the logits of all tokens: they are
computed in both, in chunks.
"""

import torch

from .linear_cross_entropy import chunks, rounded


def part_statistics(
    hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor, first: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What the loss needs of this part: nats = log(sum over parts of total * exp(maximum)) - label logit.

    Args:
        hidden: [N, D], any floating type, that of the matrix products; their sums are at least fp32.
        weight: [V', D], rows first to first + V' of the vocabulary.
        labels: int64 [N], of the whole vocabulary.

    Returns:
        Each [N], at least fp32: the largest logit of this part; the sum of exp(logit - that); the label's
        logit, 0 where another part holds it.
    """
    weight_math = rounded(weight, hidden)
    maximum, total, label_logit = (weight_math.new_empty(len(labels)) for _ in range(3))
    for rows in chunks(len(labels), weight):
        logits = hidden[rows].to(weight_math.dtype) @ weight_math.t()
        maximum[rows] = logits.amax(-1)
        place, here = _places(labels[rows], first, len(weight))
        label_logit[rows] = torch.where(here, logits.gather(1, place[:, None])[:, 0], 0.0)
        total[rows] = logits.sub_(maximum[rows, None]).exp_().sum(-1)
    return maximum, total, label_logit


def part_gradients(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    labels: torch.Tensor,
    first: int,
    normalizer: torch.Tensor,
    scale: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of sum(scale * nats), as far as they come from this part of the vocabulary.

    Args:
        normalizer: [N], log of the sum of exp(logit) over the whole vocabulary.
        scale: [N].

    Returns:
        For hidden, [N, D] in its type, to be summed over the parts; for weight, [V', D] in its type.
    """
    weight_math = rounded(weight, hidden)
    weight_cast = weight.to(hidden.dtype)
    grad_hidden = torch.empty_like(hidden)
    grad_weight = torch.zeros_like(weight_math)
    for rows in chunks(len(labels), weight):
        logits = hidden[rows].to(weight_math.dtype) @ weight_math.t()
        gradient = logits.sub_(normalizer[rows, None]).exp_()
        place, here = _places(labels[rows], first, len(weight))
        gradient.scatter_add_(1, place[:, None], -here[:, None].to(gradient.dtype))
        gradient = gradient.mul_(scale[rows, None]).to(hidden.dtype)
        torch.mm(gradient, weight_cast, out=grad_hidden[rows])
        # Chunks are added up in fp32.
        grad_weight += torch.mm(gradient.t(), hidden[rows])
    return grad_hidden, grad_weight.to(weight.dtype)


def _places(labels: torch.Tensor, first: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of the labels in this part, 0 for those of another one; and which are here."""
    here = (labels >= first) & (labels < first + size)
    return torch.where(here, labels - first, 0), here
