"""Causal attention within segments, with grouped queries.

A row of a batch holds several documents. On the CPU each of them is attended on its own, so that a document
costs what it would cost alone. Elsewhere a boolean mask does it.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from .cpu import address, cpp, has_head_dim, takes


@dataclass(frozen=True)
class SegmentBounds:
    """Where the segments of a batch begin, its rows laid end to end.

    Attributes:
        starts: int64 [segments + 1], rising; the last is the number of tokens.
        shape: of the batch, (B, S).
    """

    starts: torch.Tensor
    shape: tuple[int, int]


Segments = torch.Tensor | SegmentBounds


def prepare_segments(segments: torch.Tensor) -> Segments:
    """What `attention` needs of the segments; made once, used by every layer.

    Args:
        segments: int32 or int64 [B, S]; a segment is a run of equal numbers within a row.

    Returns:
        On the CPU their bounds, elsewhere a boolean mask [B, 1, S, S].
    """
    return _bounds(segments.numpy()) if segments.device.type == "cpu" else _mask(segments)


def attention(
    q_BSHE: torch.Tensor, k_BSKE: torch.Tensor, v_BSKE: torch.Tensor, segments: Segments | None = None
) -> torch.Tensor:
    """softmax(q k^T / sqrt(E)) v over the keys of a token's own segment up to the token itself.

    Args:
        q_BSHE, k_BSKE, v_BSKE: one floating type; the mathematics is at least fp32. Query head h uses
            key-value head h // (H / K).
        segments: int32 or int64 [B, S], or what `prepare_segments` made of it; None: one segment a row.

    Returns:
        [B, S, H, E] in the type of `q_BSHE`.

    Raises:
        ValueError: the heads do not group, or the segments have another shape.
    """
    heads, kv_heads = q_BSHE.shape[2], k_BSKE.shape[2]
    if heads % kv_heads:
        raise ValueError(f"{heads} query heads over {kv_heads} key-value heads; make them a multiple")
    if isinstance(segments, torch.Tensor) and segments.dtype != torch.bool:
        if segments.shape != q_BSHE.shape[:2]:
            raise ValueError(f"segments {tuple(segments.shape)}; allowed: {tuple(q_BSHE.shape[:2])}")
        segments = prepare_segments(segments)
    if isinstance(segments, SegmentBounds) and segments.shape != q_BSHE.shape[:2]:
        raise ValueError(f"segments {segments.shape}; allowed: {tuple(q_BSHE.shape[:2])}")
    if (
        not isinstance(segments, torch.Tensor)
        and takes(q_BSHE, k_BSKE, v_BSKE)
        and has_head_dim(q_BSHE.shape[3])
    ):
        bounds = segments or _whole_rows(q_BSHE.shape[0], q_BSHE.shape[1])
        return _AttentionInCpp.apply(q_BSHE, k_BSKE, v_BSKE, bounds.starts)
    return _attend(
        q_BSHE, k_BSKE, v_BSKE, _mask_of(segments) if isinstance(segments, SegmentBounds) else segments
    )


def attention_at(
    q_BQHE: torch.Tensor,
    k_BSKE: torch.Tensor,
    v_BSKE: torch.Tensor,
    places: torch.Tensor,
    segments: Segments | None = None,
) -> torch.Tensor:
    """`attention` of some queries only, over the keys of whole rows; with a mask of [B, 1, Q, S].

    Args:
        q_BQHE: queries of the tokens at `places`.
        places: int64 [Q], in [0, S).
        segments: of the whole rows; see `attention`.

    Returns:
        [B, Q, H, E] in the type of `q_BQHE`.
    """
    rows, size = k_BSKE.shape[:2]
    if segments is None:
        segments = torch.zeros(rows, size, dtype=torch.int32, device=places.device)
    if isinstance(segments, SegmentBounds):
        segments = _mask_of(segments)
    elif segments.dtype != torch.bool:
        segments = _mask(segments)
    return _attend(q_BQHE, k_BSKE, v_BSKE, segments.index_select(2, places))


def _attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Within the segments of a mask; within whole rows without one."""
    math = q.dtype
    if q.device.type == "cpu":
        # The CPU's fused attention is slower in bf16 than in fp32, its backward pass twice.
        math = torch.promote_types(q.dtype, torch.float32)
    mixed = functional.scaled_dot_product_attention(
        q.transpose(1, 2).to(math),
        k.transpose(1, 2).to(math),
        v.transpose(1, 2).to(math),
        attn_mask=mask,
        is_causal=mask is None,
        enable_gqa=q.shape[2] != k.shape[2],
    )
    return mixed.transpose(1, 2).to(q.dtype)


class _AttentionInCpp(torch.autograd.Function):
    """In fp32, with the logarithm of each query's softmax sum kept for the backward pass."""

    @staticmethod
    def forward(
        ctx: Any, q_BSHE: torch.Tensor, k_BSKE: torch.Tensor, v_BSKE: torch.Tensor, starts: torch.Tensor
    ) -> torch.Tensor:
        q, k, v = (x.to(torch.float32).contiguous() for x in (q_BSHE, k_BSKE, v_BSKE))
        mixed, log_sums = torch.empty_like(q), q.new_empty(q.shape[:3])
        cpp.attention_forward(
            *_sizes(q, k),
            len(starts) - 1,
            *(address(x) for x in (starts, q, k, v, mixed, log_sums)),
        )
        ctx.save_for_backward(q, k, v, starts, mixed, log_sums)
        ctx.dtype = q_BSHE.dtype
        return mixed.to(ctx.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, None]:
        q, k, v, starts, mixed, log_sums = ctx.saved_tensors
        grad = grads[0].to(torch.float32).contiguous()
        grad_q, grad_k, grad_v = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        cpp.attention_backward(
            *_sizes(q, k),
            len(starts) - 1,
            *(address(x) for x in (starts, q, k, v, mixed, log_sums, grad, grad_q, grad_k, grad_v)),
        )
        return grad_q.to(ctx.dtype), grad_k.to(ctx.dtype), grad_v.to(ctx.dtype), None


def _sizes(q_BSHE: torch.Tensor, k_BSKE: torch.Tensor) -> tuple[int, int, int]:
    return q_BSHE.shape[2], k_BSKE.shape[2], q_BSHE.shape[3]


def _mask(segments: torch.Tensor) -> torch.Tensor:
    size = segments.shape[1]
    causal = torch.ones(size, size, dtype=torch.bool, device=segments.device).tril()
    return (segments[:, None, :, None] == segments[:, None, None, :]) & causal


def _mask_of(bounds: SegmentBounds) -> torch.Tensor:
    rows, size = bounds.shape
    # The number of segments that begin up to each token: a shape that torch.compile knows.
    numbers = torch.searchsorted(bounds.starts, torch.arange(rows * size), right=True)
    return _mask(numbers.view(rows, size))


def _bounds(segments: np.ndarray) -> SegmentBounds:
    rows, size = segments.shape
    first = np.ones((rows, size), bool)
    first[:, 1:] = segments[:, 1:] != segments[:, :-1]
    return SegmentBounds(torch.from_numpy(np.append(np.flatnonzero(first), rows * size)), (rows, size))


def _whole_rows(rows: int, size: int) -> SegmentBounds:
    return SegmentBounds(torch.arange(rows + 1) * size, (rows, size))
