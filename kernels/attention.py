"""Causal attention within segments, with grouped queries.

A row of a batch holds several documents. On the CPU their tokens are regrouped, so that documents of similar
length stand side by side, padded at the end: causal attention then needs no mask, and a document costs what
it would cost alone. Elsewhere a boolean mask does it.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

# Documents down to this share of the longest one's length are padded to it.
_SHORTEST_IN_GROUP = 0.75


@dataclass(frozen=True)
class SegmentLayout:
    """Where the tokens of a batch stand once they are regrouped by document.

    Attributes:
        groups: (documents, length they are padded to) of each group.
        slots: int64 [B * S], place of each token in the groups laid end to end; None when the rows are the
            groups already.
    """

    groups: tuple[tuple[int, int], ...]
    slots: torch.Tensor | None


Segments = torch.Tensor | SegmentLayout


def prepare_segments(segments: torch.Tensor) -> Segments:
    """What `attention` needs of the segments; made once, used by every layer.

    Args:
        segments: int32 or int64 [B, S]; a segment is a run of equal numbers within a row.

    Returns:
        On the CPU a layout, elsewhere a boolean mask [B, 1, S, S].
    """
    return _layout(segments.numpy()) if segments.device.type == "cpu" else _mask(segments)


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
    if q_BSHE.device.type != "cpu":
        return _attend(q_BSHE, k_BSKE, v_BSKE, segments)
    # The CPU's fused attention is slower in bf16 than in fp32, its backward pass twice.
    dtype = q_BSHE.dtype
    math = torch.promote_types(dtype, torch.float32)
    q_BSHE, k_BSKE, v_BSKE = q_BSHE.to(math), k_BSKE.to(math), v_BSKE.to(math)
    if isinstance(segments, SegmentLayout) and segments.slots is not None:
        mixed = _attend_by_group(q_BSHE, k_BSKE, v_BSKE, segments.groups, segments.slots)
    else:
        mixed = _attend(q_BSHE, k_BSKE, v_BSKE, segments)
    return mixed.to(dtype)


def _attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, segments: Segments | None) -> torch.Tensor:
    """Within the segments of a mask; within whole rows without one."""
    mask = segments if isinstance(segments, torch.Tensor) else None
    mixed = functional.scaled_dot_product_attention(
        q.transpose(1, 2),
        k.transpose(1, 2),
        v.transpose(1, 2),
        attn_mask=mask,
        is_causal=mask is None,
        enable_gqa=q.shape[2] != k.shape[2],
    )
    return mixed.transpose(1, 2)


def _attend_by_group(
    q_BSHE: torch.Tensor,
    k_BSKE: torch.Tensor,
    v_BSKE: torch.Tensor,
    groups: tuple[tuple[int, int], ...],
    slots: torch.Tensor,
) -> torch.Tensor:
    sizes = [documents * length for documents, length in groups]

    def regrouped(x_BSHE: torch.Tensor) -> list[torch.Tensor]:
        rows = x_BSHE.flatten(0, 1)
        # Padding follows the document, so causal attention never looks at it; zeros keep its own rows finite.
        placed = rows.new_zeros(sum(sizes), *rows.shape[1:]).index_copy(0, slots, rows)
        parts = placed.split(sizes)
        return [part.unflatten(0, group) for part, group in zip(parts, groups, strict=True)]

    regrouped_qkv = zip(regrouped(q_BSHE), regrouped(k_BSKE), regrouped(v_BSKE), strict=True)
    mixed = torch.cat([_attend(q, k, v, None).flatten(0, 1) for q, k, v in regrouped_qkv])
    return mixed.index_select(0, slots).view(q_BSHE.shape)


def _mask(segments: torch.Tensor) -> torch.Tensor:
    size = segments.shape[1]
    causal = torch.ones(size, size, dtype=torch.bool, device=segments.device).tril()
    return (segments[:, None, :, None] == segments[:, None, None, :]) & causal


def _layout(segments: np.ndarray) -> SegmentLayout:
    rows, size = segments.shape
    first = np.ones((rows, size), bool)
    first[:, 1:] = segments[:, 1:] != segments[:, :-1]
    starts = np.flatnonzero(first)
    lengths = np.diff(starts, append=rows * size)
    if len(starts) == rows:
        return SegmentLayout(((rows, size),), None)
    order = np.argsort(-lengths, kind="stable")
    bases = np.empty_like(starts)
    groups: list[tuple[int, int]] = []
    offset = begin = 0
    while begin < len(order):
        longest = int(lengths[order[begin]])
        count = int(np.sum(lengths[order[begin:]] >= _SHORTEST_IN_GROUP * longest))
        bases[order[begin : begin + count]] = offset + longest * np.arange(count)
        groups.append((count, longest))
        offset += count * longest
        begin += count
    slots = np.repeat(bases - starts, lengths) + np.arange(rows * size)
    return SegmentLayout(tuple(groups), torch.from_numpy(slots))
