"""Cross-entropy of a linear layer's outputs that never holds the logits of all tokens.

The tokens are taken in chunks. For a sum every token's loss has weight one, so the gradients are made in the
same pass as the loss and only scaled in the backward pass: the logits are computed once. For losses of single
tokens the weights are known only in the backward pass, which computes the logits again.
"""

from typing import Any, Literal

import torch

from .cpu import address, cpp, takes

# Logits held at a time. On the CPU the chunk stays in the last-level cache: at vocabulary 4,096 chunks of 512
# to 1,024 tokens were fastest, the whole batch nearly twice as slow.
CPU_LOGITS, DEVICE_LOGITS = 2**21, 2**28
_SMALLEST_CHUNK = 128


def linear_cross_entropy(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    labels: torch.Tensor,
    ignore_index: int = -100,
    reduction: Literal["sum", "none"] = "sum",
) -> torch.Tensor:
    """-log softmax(hidden @ weight.T)[label] in nats.

    Args:
        hidden: [..., D], any floating type. Its type is that of the matrix products, whose sums are at least
            fp32: logits are never rounded to it.
        weight: [V, D]; cast to the type of `hidden`.
        labels: int32 or int64 [...], in [0, V), or `ignore_index` for tokens without a loss.
        reduction: "sum" over the labelled tokens, or "none".

    Returns:
        At least fp32: a scalar, or the shape of `labels` with zeros where there is no label.

    Raises:
        ValueError: shapes, a label or the reduction are wrong (labels are looked at on the CPU only:
            elsewhere that would wait for the device).
    """
    hidden_ND, labels_N, labelled = labelled_tokens(
        hidden, weight, len(weight), labels, ignore_index, reduction
    )
    if reduction == "sum":
        return _Sum.apply(hidden_ND, weight, labels_N)
    nats = _Each.apply(hidden_ND, weight, labels_N)
    return nats.new_zeros(labels.numel()).index_copy(0, labelled, nats).view(labels.shape)


def labelled_tokens(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    vocabulary: int,
    labels: torch.Tensor,
    ignore_index: int,
    reduction: str,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The checked arguments without the tokens that have no label, which cost nothing: in pairs that is half.

    Args:
        vocabulary: labels lie in [0, vocabulary); the weight may hold fewer rows.

    Returns:
        hidden [N, D], labels int64 [N], and their places int64 [N] among all tokens.

    Raises:
        ValueError: as of `linear_cross_entropy`.
    """
    if hidden.shape[:-1] != labels.shape or hidden.shape[-1] != weight.shape[-1]:
        raise ValueError(
            f"hidden {tuple(hidden.shape)}, weight {tuple(weight.shape)} and labels {tuple(labels.shape)} "
            "do not fit; allowed: [..., D], [V, D] and [...]"
        )
    if reduction not in ("sum", "none"):
        raise ValueError(f"reduction is {reduction!r}; allowed: 'sum', 'none'")
    labels_N = labels.reshape(-1)
    labelled = (labels_N != ignore_index).nonzero()[:, 0]
    hidden_ND = hidden.reshape(-1, hidden.shape[-1])
    if len(labelled) < len(labels_N):
        hidden_ND, labels_N = hidden_ND.index_select(0, labelled), labels_N.index_select(0, labelled)
    labels_N = labels_N.long()  # What gather and scatter take.
    if len(labels_N) and labels_N.device.type == "cpu":
        lowest, highest = (int(label) for label in labels_N.aminmax())
        if not 0 <= lowest <= highest < vocabulary:
            raise ValueError(f"labels are {lowest} to {highest}; allowed: 0 to {vocabulary - 1}")
    return hidden_ND, labels_N, labelled


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if not any(ctx.needs_input_grad):
            return _losses(hidden, weight, labels).sum()
        nats, grad_hidden, grad_weight = _losses_and_gradients(hidden, weight, labels, None)
        ctx.save_for_backward(grad_hidden, grad_weight)
        return nats.sum()

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        grad_hidden, grad_weight = ctx.saved_tensors
        return (
            grad_hidden * grads[0].to(grad_hidden.dtype),
            grad_weight * grads[0].to(grad_weight.dtype),
            None,
        )


class _Each(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(hidden, weight, labels)
        return _losses(hidden, weight, labels)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        hidden, weight, labels = ctx.saved_tensors
        _, grad_hidden, grad_weight = _losses_and_gradients(hidden, weight, labels, grads[0])
        return grad_hidden, grad_weight, None


def _losses(hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Nats of each token, [N]."""
    weight_math = rounded(weight, hidden)
    nats = weight_math.new_empty(len(labels))
    for rows in chunks(len(labels), weight):
        logits = hidden[rows].to(weight_math.dtype) @ weight_math.t()
        if takes(logits):
            _softmax_in_cpp(logits, labels[rows], nats[rows], None, None)
        else:
            nats[rows] = torch.log_softmax(logits, -1).gather(1, labels[rows, None])[:, 0].neg_()
    return nats


def _losses_and_gradients(
    hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor, scale: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Nats [N], and the gradients of sum(scale * nats) for hidden and weight; no scale means ones."""
    weight_math = rounded(weight, hidden)
    weight_cast = weight.to(hidden.dtype)
    nats = weight_math.new_empty(len(labels))
    grad_hidden = torch.empty_like(hidden)
    grad_weight = torch.zeros_like(weight_math)
    for rows in chunks(len(labels), weight):
        logits = hidden[rows].to(weight_math.dtype) @ weight_math.t()
        if takes(logits):
            grad_cast = (
                logits if hidden.dtype == torch.float32 else torch.empty_like(logits, dtype=hidden.dtype)
            )
            part = None if scale is None else scale[rows].to(torch.float32).contiguous()
            _softmax_in_cpp(logits, labels[rows], nats[rows], part, grad_cast)
        else:
            grad_cast = _softmax_gradient(
                logits, labels[rows], nats[rows], None if scale is None else scale[rows]
            )
            grad_cast = grad_cast.to(hidden.dtype)
        torch.mm(grad_cast, weight_cast, out=grad_hidden[rows])
        # Chunks are added up in fp32.
        grad_weight += torch.mm(grad_cast.t(), hidden[rows])
    return nats, grad_hidden, grad_weight.to(weight.dtype)


def _softmax_gradient(
    logits: torch.Tensor, labels: torch.Tensor, nats: torch.Tensor, scale: torch.Tensor | None
) -> torch.Tensor:
    """scale * (softmax - one-hot) [N, V]; writes the losses to `nats`."""
    log_probability = torch.log_softmax(logits, -1)
    label_log_probability = log_probability.gather(1, labels[:, None])
    nats.copy_(-label_log_probability[:, 0])
    gradient = log_probability.exp_().scatter_(1, labels[:, None], label_log_probability.expm1())
    return gradient if scale is None else gradient.mul_(scale[:, None])


def _softmax_in_cpp(
    logits: torch.Tensor,
    labels: torch.Tensor,
    nats: torch.Tensor,
    scale: torch.Tensor | None,
    gradient: torch.Tensor | None,
) -> None:
    """The same on a CPU; overwrites the logits. `gradient` may be their memory, or None: losses alone."""
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


def rounded(weight: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """The weight's values in the type of `hidden`, held in at least fp32: products of them are then exact."""
    return weight.to(hidden.dtype).to(torch.promote_types(hidden.dtype, torch.float32))


def chunks(tokens: int, weight: torch.Tensor) -> list[slice]:
    logits = CPU_LOGITS if weight.device.type == "cpu" else DEVICE_LOGITS
    step = chunk_tokens(len(weight), logits)
    return [slice(start, min(start + step, tokens)) for start in range(0, tokens, step)]


def chunk_tokens(vocabulary: int, logits: int) -> int:
    """Tokens of a chunk, of so many logits where that is not too few tokens."""
    return max(_SMALLEST_CHUNK, logits // vocabulary)
