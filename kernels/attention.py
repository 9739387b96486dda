"""Causal attention within segments, with grouped queries.

A row of a batch holds several documents. Each of them is attended on its own, so that it costs what it would
cost alone: in C++ on a CPU, in Triton on a GPU. In PyTorch a boolean mask does it.
"""

import functools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from . import attention_backend
from .attention_backend import Backend, choose
from .cpu import address, cpp
from .custom_op import contiguous_like, custom_op, differentiable


@dataclass(frozen=True)
class SegmentBounds:
    """Which keys each query sees, and which queries see each key: runs [first, end) of places in a row.

    Attributes:
        keys: int32 [2, B, Q]: firsts and ends of the queries' keys.
        queries: int32 [2, B, S]: firsts and ends of the keys' queries.
    """

    keys: Tensor
    queries: Tensor

    @property
    def shape(self) -> torch.Size:
        """(B, Q)."""
        return self.keys.shape[1:]

    @functools.cached_property
    def starts(self) -> Tensor:
        """int64 [segments + 1], rising: where the segments begin, the rows laid end to end, and their end.

        Of whole rows (Q = S). On a GPU the host waits for their number.
        """
        rows, size = self.shape
        first = self.keys[0] == torch.arange(size, dtype=torch.int32, device=self.keys.device)
        return functional.pad(first.flatten().nonzero().squeeze(1), (0, 1), value=rows * size)

    @functools.cached_property
    def longest(self) -> int:
        """Tokens of the longest segment; the host waits for it."""
        return int(self.starts.diff().max())

    @functools.cached_property
    def flex_mask(self) -> Any:
        """What FlexAttention needs of the keys; a bool [B, Q, S] while it is made."""
        return attention_backend.flex_mask(self.keys, self.queries.shape[2])

    @property
    def mask(self) -> Tensor:
        """bool [B, 1, Q, S]: which keys each query sees."""
        place = torch.arange(self.queries.shape[2], dtype=torch.int32, device=self.keys.device)
        first, end = self.keys[:, :, None, :, None]
        return (place >= first) & (place < end)


Segments = Tensor | SegmentBounds


def prepare_segments(segments: Tensor) -> SegmentBounds:
    """What `attention` needs of the segments; made once, used by every layer.

    Args:
        segments: int32 or int64 [B, S]; a segment is a run of equal numbers within a row.
    """
    rows, size = segments.shape
    place = torch.arange(size, dtype=torch.int32, device=segments.device).expand(rows, -1)
    changes = segments[:, 1:] != segments[:, :-1]
    first = torch.where(functional.pad(changes, (1, 0), value=True), place, 0).cummax(1).values
    end = torch.where(functional.pad(changes, (0, 1), value=True), place + 1, size)
    end = end.flip(1).cummin(1).values.flip(1)
    return SegmentBounds(torch.stack((first, place + 1)), torch.stack((place, end)))


def attention(
    q_BSHE: Tensor,
    k_BSKE: Tensor,
    v_BSKE: Tensor,
    segments: Segments | None = None,
    backend: Backend = "auto",
) -> Tensor:
    """softmax(q k^T / sqrt(E)) v over the keys of a token's own segment up to the token itself.

    Args:
        q_BSHE, k_BSKE, v_BSKE: one floating type; the mathematics is at least fp32. Query head h uses
            key-value head h // (H / K).
        segments: int32 or int64 [B, S], or what `prepare_segments` made of it; None: one segment a row.
        backend: see `attention_backend.choose`.

    Returns:
        [B, S, H, E] in the type of `q_BSHE`.

    Raises:
        ValueError: the tensors or the segments do not fit together, or the backend cannot do it.
    """
    _check_tensors(q_BSHE, k_BSKE, v_BSKE)
    if q_BSHE.shape[1] != k_BSKE.shape[1]:
        raise ValueError(
            f"queries of {q_BSHE.shape[1]} tokens, keys of {k_BSKE.shape[1]}; make them equal, or give "
            "attention_at the places of the queries"
        )
    if segments is not None and segments.shape != q_BSHE.shape[:2]:
        raise ValueError(f"segments {tuple(segments.shape)}; allowed: {tuple(q_BSHE.shape[:2])}")
    chosen = choose(backend, q_BSHE, k_BSKE, v_BSKE, segmented=segments is not None).backend
    if segments is None and chosen == "torch":
        return attention_backend.attend_in_torch(q_BSHE, k_BSKE, v_BSKE, None)
    if chosen == "sdpa":
        return attention_backend.attend_in_sdpa(q_BSHE, k_BSKE, v_BSKE)
    if segments is None:
        segments = _whole_rows(q_BSHE.shape[0], q_BSHE.shape[1], q_BSHE.device)
    elif isinstance(segments, Tensor):
        segments = prepare_segments(segments)
    return _attend(chosen, q_BSHE, k_BSKE, v_BSKE, segments)


def attention_at(
    q_BQHE: Tensor,
    k_BSKE: Tensor,
    v_BSKE: Tensor,
    places: Tensor,
    segments: Segments | None = None,
    backend: Backend = "auto",
) -> Tensor:
    """`attention` of some queries only, over the keys of whole rows.

    Args:
        q_BQHE: queries of the tokens at `places`.
        places: int64 [Q], in [0, S), rising: else a GPU stops the program.
        segments: of the whole rows; see `attention`.
        backend: see `attention_backend.choose`.

    Returns:
        [B, Q, H, E] in the type of `q_BQHE`.

    Raises:
        ValueError: as of `attention`.
    """
    _check_tensors(q_BQHE, k_BSKE, v_BSKE)
    rows, size = k_BSKE.shape[:2]
    if segments is not None and segments.shape != (rows, size):
        raise ValueError(f"segments {tuple(segments.shape)}; allowed: {(rows, size)}")
    if segments is None:
        segments = _whole_rows(rows, size, places.device)
    elif isinstance(segments, Tensor):
        segments = prepare_segments(segments)
    return attention_within(q_BQHE, k_BSKE, v_BSKE, _bounds_at(segments, places), backend)


def attention_within(
    q_BQHE: Tensor, k_BSKE: Tensor, v_BSKE: Tensor, bounds: SegmentBounds, backend: Backend = "auto"
) -> Tensor:
    """`attention` of any queries over the keys that `bounds` says, at least one each.

    Returns:
        [B, Q, H, E] in the type of `q_BQHE`. Without gradients `bounds.queries` need only have its shape.

    Raises:
        ValueError: as of `attention`.
    """
    _check_tensors(q_BQHE, k_BSKE, v_BSKE)
    chosen = choose(backend, q_BQHE, k_BSKE, v_BSKE, segmented=True, placed=True).backend
    return _attend(chosen, q_BQHE, k_BSKE, v_BSKE, bounds)


def _check_tensors(q: Tensor, k: Tensor, v: Tensor) -> None:
    fit = q.dim() == k.dim() == 4 and v.shape == k.shape
    if not fit or q.shape[0] != k.shape[0] or q.shape[3] != k.shape[3]:
        raise ValueError(
            f"queries are {tuple(q.shape)}, keys {tuple(k.shape)}, values {tuple(v.shape)}; allowed: "
            "[B, Q, H, E], and twice [B, S, K, E]"
        )
    heads, kv_heads = q.shape[2], k.shape[2]
    if heads % kv_heads:
        raise ValueError(f"{heads} query heads over {kv_heads} key-value heads; make them a multiple")


def _attend(chosen: str, q: Tensor, k: Tensor, v: Tensor, bounds: SegmentBounds) -> Tensor:
    of_keys, of_queries = (2, *q.shape[:2]), (2, *k.shape[:2])
    if bounds.keys.shape != of_keys or bounds.queries.shape != of_queries:
        raise ValueError(
            f"bounds are {tuple(bounds.keys.shape)} and {tuple(bounds.queries.shape)}; allowed: {of_keys} "
            f"and {of_queries}"
        )
    match chosen:
        case "cpp":
            # What the backward pass reads of the result is fp32 too.
            math = [x.to(torch.float32) for x in (q, k, v)]
            return _attention_forward(*math, bounds.keys, bounds.queries, bounds.starts)[0].to(q.dtype)
        case "triton":
            return _attention_forward(q, k, v, bounds.keys, bounds.queries, None)[0]
        case "flex":
            return attention_backend.attend_in_flex(q, k, v, bounds.flex_mask)
        case "torch":
            return attention_backend.attend_in_torch(q, k, v, bounds.mask)
    return attention_backend.attend_in_flash(chosen, q, k, v, bounds.starts, bounds.longest)


@custom_op(fake=lambda q, k, v, keys, queries, starts: (contiguous_like(q), _log_sums_like(q)))
def _attention_forward(
    q: Tensor, k: Tensor, v: Tensor, keys: Tensor, queries: Tensor, starts: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The result, and fp32 [B, H, Q], the logarithm of each query's sum of exp(score).

    Takes what is in `SegmentBounds`; with `starts` C++ computes, and the tensors are fp32.
    """
    q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
    if starts is None:
        from .gpu import attention as gpu

        return gpu.forward(q, k, v, keys)
    mixed, log_sums = torch.empty_like(q), q.new_empty(q.shape[:3])
    cpp.attention_forward(
        *_sizes(q, k), len(starts) - 1, *(address(x) for x in (starts, q, k, v, mixed, log_sums))
    )
    return mixed, log_sums.transpose(1, 2).contiguous()


@custom_op(
    fake=lambda grad, q, k, v, mixed, log_sums, keys, queries, starts: (
        contiguous_like(q),
        contiguous_like(k),
        contiguous_like(v),
    )
)
def _attention_backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mixed: Tensor,
    log_sums: Tensor,
    keys: Tensor,
    queries: Tensor,
    starts: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of queries, keys and values."""
    grad, q, k, v = (x.contiguous() for x in (grad, q, k, v))
    if starts is None:
        from .gpu import attention_backward as gpu

        return gpu.backward(grad, q, k, v, mixed, log_sums, keys, queries)
    log_sums = log_sums.transpose(1, 2).contiguous()
    grad_q, grad_k, grad_v = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
    cpp.attention_backward(
        *_sizes(q, k),
        len(starts) - 1,
        *(address(x) for x in (starts, q, k, v, mixed, log_sums, grad, grad_q, grad_k, grad_v)),
    )
    return grad_q, grad_k, grad_v


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, *bounds = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(q, k, v, *output, *bounds)


def _gradients(ctx: Any, grad: Tensor, _: None) -> tuple[Tensor | None, ...]:
    return *_attention_backward(grad, *ctx.saved_tensors), None, None, None


differentiable(_attention_forward, _setup, _gradients)


def _sizes(q_BSHE: Tensor, k_BSKE: Tensor) -> tuple[int, int, int]:
    return q_BSHE.shape[2], k_BSKE.shape[2], q_BSHE.shape[3]


def _log_sums_like(q_BQHE: Tensor) -> Tensor:
    rows, queries, heads, _ = q_BQHE.shape
    return q_BQHE.new_empty(rows, heads, queries, dtype=torch.float32)


def _whole_rows(rows: int, size: int, device: torch.device) -> SegmentBounds:
    return prepare_segments(torch.zeros(rows, size, dtype=torch.int32, device=device))


def _bounds_at(bounds: SegmentBounds, places: Tensor) -> SegmentBounds:
    """Of the queries at some places only, which count from zero then."""
    if places.device.type == "cuda":
        torch._assert_async((places.diff() > 0).all(), "attention_at: places do not rise")
    queries = torch.searchsorted(places.to(torch.int32), bounds.queries, out_int32=True)
    return SegmentBounds(bounds.keys.index_select(2, places), queries)
