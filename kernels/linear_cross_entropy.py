"""Cross-entropy of a linear layer's outputs that never holds the logits of all tokens.

The tokens are taken in chunks. For a sum every token's loss has weight one, so the gradients are made in the
same pass as the loss and only scaled in the backward pass: the logits are computed once. For losses of single
tokens the weights are known only in the backward pass, which computes the logits again.
"""

from typing import Any, Literal

import torch

from . import products
from .cpu import address, cpp
from .cross_entropy import (
    check_labels,
    check_options,
    cross_entropy_gradient,
    cross_entropy_statistics,
    nats_of,
)
from .route import route

# Logits held at a time. On the CPU the chunk stays in the last-level cache: at vocabulary 4,096 chunks of 512
# to 1,024 tokens were fastest, the whole batch nearly twice as slow. A device reads and writes the fp32
# gradient of the weight once a chunk: 8 bytes an element, beside 6 operations an element and token. At
# vocabulary 65,536 these 2**28 are 4,096 tokens: the traffic is a twentieth of the products' time on an H200,
# and logits and their bf16 gradients are 1.5 GiB.
CPU_LOGITS, DEVICE_LOGITS = 2**21, 2**28
_SMALLEST_CHUNK = 128


def linear_cross_entropy(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    labels: torch.Tensor,
    ignore_index: int = -100,
    reduction: Literal["sum", "none"] = "sum",
    z_loss: float = 0.0,
) -> torch.Tensor:
    """-log softmax(hidden @ weight.T)[label] in nats, and z_loss * log(sum(exp(hidden @ weight.T)))**2.

    Args:
        hidden: [..., D], any floating type. Its type is that of the matrix products, whose sums are at least
            fp32: logits are never rounded to it.
        weight: [V, D]; cast to the type of `hidden`.
        labels: int32 or int64 [...], in [0, V), or `ignore_index` for tokens without a loss.
        reduction: "sum" over the labelled tokens, or "none".
        z_loss: 0 or more; C++ has none but 0 and leaves others to PyTorch.

    Returns:
        At least fp32: a scalar, or the shape of `labels` with zeros where there is no label.

    Raises:
        ValueError: shapes, a label, the reduction or z_loss are wrong; of a label on a GPU, see
            `cross_entropy`.
    """
    check_options(z_loss, reduction)
    hidden_ND, labels_N, labelled = labelled_tokens(hidden, weight, len(weight), labels, ignore_index)
    if reduction == "sum":
        # `apply` could not tell: what it knows of its inputs is the same under torch.no_grad().
        if torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad):
            return _Sum.apply(hidden_ND, weight, labels_N, z_loss)
        return _losses(hidden_ND, weight, labels_N, z_loss).sum()
    nats = _Each.apply(hidden_ND, weight, labels_N, z_loss)
    return nats.new_zeros(labels.numel()).index_copy(0, labelled, nats).view(labels.shape)


def labelled_tokens(
    hidden: torch.Tensor, weight: torch.Tensor, vocabulary: int, labels: torch.Tensor, ignore_index: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The checked arguments without the tokens that have no label, which cost nothing: in pairs that is half.

    Args:
        vocabulary: labels lie in [0, vocabulary); the weight may hold fewer rows.

    Returns:
        hidden [N, D], labels int64 [N], contiguous, and their places int64 [N] among all tokens.

    Raises:
        ValueError: as of `linear_cross_entropy`.
    """
    if hidden.shape[:-1] != labels.shape or hidden.shape[-1] != weight.shape[-1]:
        raise ValueError(
            f"hidden {tuple(hidden.shape)}, weight {tuple(weight.shape)} and labels {tuple(labels.shape)} "
            "do not fit; allowed: [..., D], [V, D] and [...]"
        )
    labels_N = labels.reshape(-1)
    check_labels(labels_N, ignore_index, vocabulary)
    labelled = (labels_N != ignore_index).nonzero()[:, 0]
    hidden_ND = hidden.reshape(-1, hidden.shape[-1])
    if len(labelled) < len(labels_N):
        hidden_ND, labels_N = hidden_ND.index_select(0, labelled), labels_N.index_select(0, labelled)
    # The type that gather takes, one after the other as kernels read them: a column of pairs is not.
    return hidden_ND, labels_N.long().contiguous(), labelled


class _Sum(torch.autograd.Function):
    """Where gradients are asked for: they are made in the forward pass."""

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor, z_loss: float
    ) -> torch.Tensor:
        nats, grad_hidden, grad_weight = _losses_and_gradients(hidden, weight, labels, None, z_loss)
        ctx.save_for_backward(grad_hidden, grad_weight)
        return nats.sum()

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None, None]:
        grad_hidden, grad_weight = ctx.saved_tensors
        return _scaled(grad_hidden, grads[0]), _scaled(grad_weight, grads[0]), None, None


def _scaled(gradient: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """gradient * factor, a scalar of at least fp32, in the type of `gradient`.

    Multiplied in the wider type and rounded once: a factor rounded to bf16 would be wrong by up to 2**-8, and
    with it every gradient below. One of a dimension widens the product, one of none does not. With `out` a
    GPU rounds as it writes; a product of its own would be 4 bytes an element more.
    """
    return torch.mul(gradient, factor.reshape(1), out=torch.empty_like(gradient))


class _Each(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor, z_loss: float
    ) -> torch.Tensor:
        ctx.save_for_backward(hidden, weight, labels)
        ctx.z_loss = z_loss
        return _losses(hidden, weight, labels, z_loss)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None, None]:
        hidden, weight, labels = ctx.saved_tensors
        _, grad_hidden, grad_weight = _losses_and_gradients(hidden, weight, labels, grads[0], ctx.z_loss)
        return grad_hidden, grad_weight, None, None


def _losses(hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor, z_loss: float) -> torch.Tensor:
    """Nats of each token, [N]."""
    in_cpp = z_loss == 0 and route(hidden) == "cpp"
    weight = _fp32(weight, hidden) if in_cpp else weight.to(hidden.dtype)
    nats = _numbers(hidden)
    for rows in chunks(len(labels), weight):
        if in_cpp:
            _softmax_in_cpp(hidden[rows].to(torch.float32) @ weight.t(), labels[rows], nats[rows], None, None)
        else:
            logits = products.wide_product(hidden[rows], weight.t())
            maximum, total, label_logit = cross_entropy_statistics(logits, labels[rows], 0)
            nats[rows] = nats_of(maximum, total, label_logit, z_loss)
            del logits  # Before the next are made.
    return nats


def _losses_and_gradients(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    labels: torch.Tensor,
    scale: torch.Tensor | None,
    z_loss: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Nats [N], and the gradients of sum(scale * nats) for hidden and weight; no scale means ones."""
    if scale is not None:
        scale = scale.to(torch.promote_types(hidden.dtype, torch.float32)).contiguous()
    if z_loss == 0 and route(hidden) == "cpp":
        return _losses_and_gradients_in_cpp(hidden, weight, labels, scale)
    weight_cast = weight.to(hidden.dtype)
    nats, grad_hidden = _numbers(hidden), torch.empty_like(hidden)
    grad_weight = torch.zeros_like(weight, dtype=nats.dtype)
    for rows in chunks(len(labels), weight):
        logits = products.wide_product(hidden[rows], weight_cast.t())
        maximum, total, label_logit = cross_entropy_statistics(logits, labels[rows], 0)
        nats[rows] = nats_of(maximum, total, label_logit, z_loss)
        part = None if scale is None else scale[rows]
        gradient = cross_entropy_gradient(logits, labels[rows], 0, maximum, total, part, z_loss, hidden.dtype)
        del logits
        torch.mm(gradient, weight_cast, out=grad_hidden[rows])
        products.add_wide_product(grad_weight, gradient.t(), hidden[rows])
        del gradient
    return nats, grad_hidden, grad_weight.to(weight.dtype)


def _losses_and_gradients_in_cpp(
    hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor, scale: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The same on a CPU, where products of fp32 are faster than those of bf16 with fp32 results."""
    weight_math, weight_cast = _fp32(weight, hidden), weight.to(hidden.dtype)
    nats, grad_hidden = _numbers(hidden), torch.empty_like(hidden)
    grad_weight = torch.zeros_like(weight_math)
    for rows in chunks(len(labels), weight):
        logits = hidden[rows].to(torch.float32) @ weight_math.t()
        # Its own memory, or that of the logits.
        gradient = torch.empty_like(logits, dtype=hidden.dtype) if hidden.dtype != logits.dtype else logits
        _softmax_in_cpp(logits, labels[rows], nats[rows], None if scale is None else scale[rows], gradient)
        torch.mm(gradient, weight_cast, out=grad_hidden[rows])
        # Chunks are added up in fp32.
        grad_weight += torch.mm(gradient.t(), hidden[rows])
    return nats, grad_hidden, grad_weight.to(weight.dtype)


def _softmax_in_cpp(
    logits: torch.Tensor,
    labels: torch.Tensor,
    nats: torch.Tensor,
    scale: torch.Tensor | None,
    gradient: torch.Tensor | None,
) -> None:
    """Writes nats, and scale * (softmax - one-hot) to `gradient`, unless it is None, which may be the logits'
    memory; the logits are overwritten."""
    tokens, vocabulary = logits.shape
    cpp.cross_entropy(
        gradient is not None and gradient.dtype == torch.bfloat16,
        tokens,
        vocabulary,
        address(logits),
        address(labels),
        address(nats),
        0 if scale is None else address(scale),
        0 if gradient is None else address(gradient),
    )


def _fp32(weight: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """The weight's values in the type of `hidden`, held in fp32: products of them are then exact."""
    return weight.to(hidden.dtype).to(torch.float32)


def _numbers(hidden: torch.Tensor) -> torch.Tensor:
    """Memory for a number of each token."""
    return hidden.new_empty(len(hidden), dtype=torch.promote_types(hidden.dtype, torch.float32))


def chunks(tokens: int, weight: torch.Tensor) -> list[slice]:
    logits = CPU_LOGITS if weight.device.type == "cpu" else DEVICE_LOGITS
    step = chunk_tokens(len(weight), logits)
    return [slice(start, min(start + step, tokens)) for start in range(0, tokens, step)]


def chunk_tokens(vocabulary: int, logits: int) -> int:
    """Tokens of a chunk, of so many logits where that is not too few tokens."""
    return max(_SMALLEST_CHUNK, logits // vocabulary)
