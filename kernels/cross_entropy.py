"""Cross-entropy of logits that exist, of the whole vocabulary or of some of its rows.

Two operators, between which the parts of a vocabulary add up what they have: statistics of each row by the
online softmax (Milakov and Gimelshein, arXiv 1805.02867), then the gradient, written once in the type of the
matrix products. A z-loss keeps the logarithms of the sums of exponentials near zero (PaLM, arXiv 2204.02311,
section 5).
"""

from typing import Any, Literal

import torch
from torch import Tensor

from .custom_op import contiguous_like, custom_op, differentiable
from .route import route

# What the operators take for a token without a loss; so is every label below 0.
NO_LABEL = -1


def cross_entropy(
    logits: Tensor,
    labels: Tensor,
    ignore_index: int = -100,
    z_loss: float = 0.0,
    reduction: Literal["sum", "none"] = "sum",
) -> Tensor:
    """-log softmax(logits)[label] + z_loss * log(sum(exp(logits)))**2, in nats.

    Args:
        logits: [..., V], any floating type; the mathematics is at least fp32. In Triton on a GPU, else in
            PyTorch.
        labels: int32 or int64 [...], in [0, V), or `ignore_index` for tokens without a loss.
        z_loss: 0 or more.
        reduction: "sum" over the labelled tokens, or "none".

    Returns:
        At least fp32: a scalar, or the shape of `labels` with zeros where there is no label.

    Raises:
        ValueError: shapes, a label, z_loss or the reduction are wrong. Such a label stops a GPU's program
            later, without waiting for the device here.
    """
    if logits.shape[:-1] != labels.shape:
        raise ValueError(
            f"logits {tuple(logits.shape)} and labels {tuple(labels.shape)} do not fit; "
            "allowed: [..., V] and [...]"
        )
    check_options(z_loss, reduction)
    labels_N = labels.reshape(-1)
    check_labels(labels_N, ignore_index, logits.shape[-1])
    labels_N = labels_N.masked_fill(labels_N == ignore_index, NO_LABEL)
    nats, _, _ = _cross_entropy_forward(logits.reshape(-1, logits.shape[-1]), labels_N, z_loss)
    return nats.sum() if reduction == "sum" else nats.view(labels.shape)


def check_options(z_loss: float, reduction: str) -> None:
    """Raises ValueError where a loss has no such option."""
    if not 0 <= z_loss < float("inf"):
        raise ValueError(f"z_loss is {z_loss}; allowed: finite numbers from 0 on")
    if reduction not in ("sum", "none"):
        raise ValueError(f"reduction is {reduction!r}; allowed: 'sum', 'none'")


def check_labels(labels: Tensor, ignore_index: int, vocabulary: int) -> None:
    """Refuses labels that are neither ignored nor in [0, vocabulary); see `cross_entropy`."""
    if labels.device.type == "cuda":
        fits = (labels >= 0) & (labels < vocabulary) | (labels == ignore_index)
        torch._assert_async(fits.all(), f"a label lies outside 0 to {vocabulary - 1}, and is not ignored")
    if labels.device.type != "cpu":
        return
    labels = labels[labels != ignore_index]
    if len(labels):
        lowest, highest = (int(label) for label in labels.aminmax())
        if not 0 <= lowest <= highest < vocabulary:
            raise ValueError(f"labels are {lowest} to {highest}; allowed: 0 to {vocabulary - 1}")


def nats_of(maximum: Tensor, total: Tensor, label_logit: Tensor, z_loss: float) -> Tensor:
    """Loss of each token from the statistics of its whole row.

    Logits are first subtracted from each other: next to a large one the logarithm would be lost.
    """
    logarithm = total.log()
    nats = logarithm + (maximum - label_logit)
    return nats + z_loss * (maximum + logarithm).square() if z_loss else nats


@custom_op(fake=lambda logits, labels, first: tuple(_numbers_like(logits) for _ in range(3)))
def cross_entropy_statistics(logits: Tensor, labels: Tensor, first: int) -> tuple[Tensor, Tensor, Tensor]:
    """What the loss needs of rows first to first + V' of the vocabulary.

    Args:
        logits: [N, V'], any floating type.
        labels: int32 or int64 [N], of the whole vocabulary; below 0 for a token without a loss.

    Returns:
        Each [N], at least fp32: the largest logit; the sum of exp(logit - that); the label's logit, 0 where
        it is not here. A token without a loss has 0, 1 and 0, whose loss is 0.
    """
    if route(logits) == "triton":
        from .gpu import cross_entropy as gpu

        return gpu.statistics(logits.contiguous(), labels.contiguous(), first)
    return _statistics(logits, labels, first)


@custom_op(
    fake=lambda logits, labels, first, maximum, total, scale, z_loss, dtype: contiguous_like(logits).to(dtype)
)
def cross_entropy_gradient(
    logits: Tensor,
    labels: Tensor,
    first: int,
    maximum: Tensor,
    total: Tensor,
    scale: Tensor | None,
    z_loss: float,
    dtype: torch.dtype,
) -> Tensor:
    """scale * ((1 + 2 * z_loss * log of the row's sum) * softmax - one-hot), rows first to first + V' of it.

    Args:
        logits, labels, first: as of `cross_entropy_statistics`.
        maximum, total: [N], of the whole vocabulary: the largest logit and the sum of exp(logit - that).
        scale: [N], the gradients of the losses; None for ones.

    Returns:
        [N, V'] in `dtype`; zeros for a token without a loss.
    """
    if route(logits) == "triton":
        from .gpu import cross_entropy as gpu

        logits, labels, maximum, total = (x.contiguous() for x in (logits, labels, maximum, total))
        scale = None if scale is None else scale.contiguous()
        return gpu.gradient(logits, labels, first, maximum, total, scale, z_loss, dtype)
    # As the logits lie, else.
    return _gradient(logits, labels, first, maximum, total, scale, z_loss).to(dtype).contiguous()


@custom_op(fake=lambda logits, labels, z_loss: tuple(_numbers_like(logits) for _ in range(3)))
def _cross_entropy_forward(logits: Tensor, labels: Tensor, z_loss: float) -> tuple[Tensor, Tensor, Tensor]:
    """Nats, and maximum and total of each row for the backward pass."""
    maximum, total, label_logit = cross_entropy_statistics(logits, labels, 0)
    return nats_of(maximum, total, label_logit, z_loss), maximum, total


def _forward_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    logits, labels, ctx.z_loss = inputs
    ctx.save_for_backward(logits, labels, *output[1:])


def _forward_gradients(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
    logits, labels, maximum, total = ctx.saved_tensors
    scale = grads[0].to(maximum.dtype)
    gradient = cross_entropy_gradient(logits, labels, 0, maximum, total, scale, ctx.z_loss, logits.dtype)
    return gradient, None, None


differentiable(_cross_entropy_forward, _forward_setup, _forward_gradients)


def _numbers_like(logits: Tensor) -> Tensor:
    """Memory for a number of each row."""
    return logits.new_empty(logits.shape[:1], dtype=torch.promote_types(logits.dtype, torch.float32))


def _statistics(logits: Tensor, labels: Tensor, first: int) -> tuple[Tensor, Tensor, Tensor]:
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    place, here = _places(labels, first, logits.shape[1])
    label_logit = torch.where(here, logits.gather(1, place[:, None])[:, 0], 0.0)
    maximum = logits.amax(-1)
    # A part may hold nothing but -inf: its sum is 0, not exp of a difference of infinities.
    shift = maximum.masked_fill(maximum == -torch.inf, 0.0)
    total = (logits - shift[:, None]).exp_().sum(-1)
    ignored = labels < 0
    return maximum.masked_fill(ignored, 0.0), total.masked_fill(ignored, 1.0), label_logit


def _gradient(
    logits: Tensor,
    labels: Tensor,
    first: int,
    maximum: Tensor,
    total: Tensor,
    scale: Tensor | None,
    z_loss: float,
) -> Tensor:
    factor = (1 + 2 * z_loss * (maximum + total.log())) / total
    gradient = (logits.to(maximum.dtype) - maximum[:, None]).exp_().mul_(factor[:, None])
    place, here = _places(labels, first, logits.shape[1])
    gradient.scatter_add_(1, place[:, None], -here[:, None].to(gradient.dtype))
    if scale is not None:
        gradient.mul_(scale[:, None])
    return gradient.masked_fill_((labels < 0)[:, None], 0.0)


def _places(labels: Tensor, first: int, size: int) -> tuple[Tensor, Tensor]:
    """Rows of the labels in this part, int64, 0 for those that are not here; and which are here."""
    labels = labels.long()
    here = (labels >= 0) & (labels >= first) & (labels < first + size)
    return torch.where(here, labels - first, 0), here
