"""Norms of the heads of queries and keys (QK-norm: Henry et al., arXiv 2010.04245) then their rotation."""

from typing import Any

import torch
from torch import Tensor

from .custom_op import contiguous_like, custom_op, differentiable
from .rms_norm import rms_norm
from .rope import check_table, rotate
from .route import route


def qk_norm_rope(
    q_BSHE: Tensor, k_BSKE: Tensor, q_weight: Tensor, k_weight: Tensor, table: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """`rms_norm` of each head, then `rotate`; on a GPU in one pass, with one rounding.

    Args:
        q_BSHE, k_BSKE: of one floating type; the mathematics is at least fp32.
        q_weight, k_weight: [E], of one floating type.
        table: of `rotation_table`.
        eps: added to the mean square.

    Returns:
        Both, in their shapes and types.

    Raises:
        ValueError: sizes or types do not fit.
    """
    if route(q_BSHE, k_BSKE) != "triton":
        return rotate(rms_norm(q_BSHE, q_weight, eps), rms_norm(k_BSKE, k_weight, eps), table)
    check_table(q_BSHE, k_BSKE, table)
    for weight in (q_weight, k_weight):
        if weight.shape != q_BSHE.shape[-1:]:
            raise ValueError(f"weight has shape {tuple(weight.shape)}; allowed: {tuple(q_BSHE.shape[-1:])}")
    return _qk_norm_rope_forward(q_BSHE, k_BSKE, q_weight, k_weight, table, eps)


@custom_op(fake=lambda q, k, q_weight, k_weight, table, eps: (contiguous_like(q), contiguous_like(k)))
def _qk_norm_rope_forward(
    q: Tensor, k: Tensor, q_weight: Tensor, k_weight: Tensor, table: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    from .gpu import qk_norm_rope as gpu

    weights = q_weight.contiguous(), k_weight.contiguous()
    return gpu.forward(q.contiguous(), k.contiguous(), *weights, table.contiguous(), eps)


@custom_op(
    fake=lambda grad_q, grad_k, q, k, q_weight, k_weight, table, eps: (
        contiguous_like(q),
        contiguous_like(k),
        torch.empty_like(q_weight),
        torch.empty_like(k_weight),
    )
)
def _qk_norm_rope_backward(
    grad_q: Tensor,
    grad_k: Tensor,
    q: Tensor,
    k: Tensor,
    q_weight: Tensor,
    k_weight: Tensor,
    table: Tensor,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of queries, keys and both weights."""
    from .gpu import qk_norm_rope as gpu

    inputs = (grad_q.contiguous(), grad_k.contiguous(), q.contiguous(), k.contiguous())
    weights = q_weight.contiguous(), k_weight.contiguous()
    return gpu.backward(*inputs, *weights, table.contiguous(), eps)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    # The heads' lengths are taken again: the heads are read anyway.
    *tensors, ctx.eps = inputs
    ctx.save_for_backward(*tensors)


def _gradients(
    ctx: Any, grad_q: Tensor | None, grad_k: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor, None, None]:
    q, k, *others = ctx.saved_tensors
    grad_q = torch.zeros_like(q) if grad_q is None else grad_q
    grad_k = torch.zeros_like(k) if grad_k is None else grad_k
    return *_qk_norm_rope_backward(grad_q, grad_k, q, k, *others, ctx.eps), None, None


differentiable(_qk_norm_rope_forward, _setup, _gradients)
