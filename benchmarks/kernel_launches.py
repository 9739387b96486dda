"""The Triton kernels' launches at the sizes of the 3B recipe, with the configs that a tuner may try."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import torch

from megasbp.kernels.attention import prepare_segments
from megasbp.kernels.gpu import (
    attention,
    attention_backward,
    cross_entropy,
    invariant_linear,
    paged_attention,
    qk_norm_rope,
    rms_norm,
    rope,
    sample,
    swiglu,
)
from megasbp.kernels.gpu.launch import Config
from megasbp.kernels.linear_cross_entropy import DEVICE_LOGITS

# Of configs/sbp_3b_200b.toml, but for the vocabulary, which is a larger one's.
WIDTH, HEADS, KV_HEADS, HEAD_DIM, FEED_FORWARD, VOCABULARY = 3072, 24, 8, 128, 8192, 65_536
SEQUENCE = 4096
_EPSILON = 1e-6


@dataclasses.dataclass(frozen=True)
class Launch:
    """One kernel in one direction.

    Attributes:
        prepare: prepare(rows, device) makes the inputs, random numbers in bf16, and gives the call; the call
            takes a config or, without one, the kernel's own.
        candidates: configs that may be tried.
        in_fp16: whether builds take fp16 in place of bf16.
    """

    name: str
    prepare: Callable[[int, str], Callable[..., Any]]
    candidates: tuple[Config, ...] = ()
    in_fp16: bool = False


def _random(device: str, *shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    return torch.randn(shape, device=device, dtype=dtype)


def _stream(rows: int, device: str, count: int, width: int = WIDTH) -> list[torch.Tensor]:
    return [_random(device, rows, SEQUENCE, width) for _ in range(count)]


def _norm_weight(device: str, size: int = WIDTH) -> torch.Tensor:
    return _random(device, size, dtype=torch.float32)


def _rms_norm_forward(rows: int, device: str) -> Callable[..., Any]:
    (x,) = _stream(rows, device, 1)
    weight = _norm_weight(device)
    return lambda *config: rms_norm.forward(x, weight, _EPSILON, *config)


def _add_rms_norm_forward(rows: int, device: str) -> Callable[..., Any]:
    x, residual = _stream(rows, device, 2)
    weight = _norm_weight(device)
    return lambda *config: rms_norm.add_forward(x, residual, weight, _EPSILON, *config)


def _rms_norm_backward(rows: int, device: str) -> Callable[..., Any]:
    grad, x = _stream(rows, device, 2)
    weight, scale = _norm_weight(device), _random(device, rows, SEQUENCE, dtype=torch.float32)
    return lambda *config: rms_norm.backward(grad, None, x, weight, scale, *config)


def _add_rms_norm_backward(rows: int, device: str) -> Callable[..., Any]:
    grad, grad_total, x = _stream(rows, device, 3)
    weight, scale = _norm_weight(device), _random(device, rows, SEQUENCE, dtype=torch.float32)
    return lambda *config: rms_norm.backward(grad, grad_total, x, weight, scale, *config)


def _swiglu_forward(rows: int, device: str) -> Callable[..., Any]:
    gate, up = _stream(rows, device, 2, FEED_FORWARD)
    return lambda *config: swiglu.forward(gate, up, *config)


def _swiglu_backward(rows: int, device: str) -> Callable[..., Any]:
    grad, gate, up = _stream(rows, device, 3, FEED_FORWARD)
    return lambda *config: swiglu.backward(grad, gate, up, *config)


def _heads(rows: int, device: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    q = _random(device, rows, SEQUENCE, HEADS, HEAD_DIM)
    k = _random(device, rows, SEQUENCE, KV_HEADS, HEAD_DIM)
    return q, k, _random(device, 2, rows, SEQUENCE, 1, HEAD_DIM, dtype=torch.float32)


def _rope(rows: int, device: str, direction: int = 1) -> Callable[..., Any]:
    q, k, table = _heads(rows, device)
    return lambda *config: rope.rotate(q, k, table, direction, *config)


def _qk_norm_rope_forward(rows: int, device: str) -> Callable[..., Any]:
    q, k, table = _heads(rows, device)
    weights = _norm_weight(device, HEAD_DIM), _norm_weight(device, HEAD_DIM)
    return lambda *config: qk_norm_rope.forward(q, k, *weights, table, _EPSILON, *config)


def _qk_norm_rope_backward(rows: int, device: str) -> Callable[..., Any]:
    q, k, table = _heads(rows, device)
    grads = torch.randn_like(q), torch.randn_like(k)
    weights = _norm_weight(device, HEAD_DIM), _norm_weight(device, HEAD_DIM)
    return lambda *config: qk_norm_rope.backward(*grads, q, k, *weights, table, _EPSILON, *config)


def _logits(device: str, tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
    logits = _random(device, tokens, VOCABULARY, dtype=torch.float32)
    return logits, torch.randint(VOCABULARY, (tokens,), device=device)


def _cross_entropy_statistics(rows: int, device: str) -> Callable[..., Any]:
    logits, labels = _logits(device, DEVICE_LOGITS // VOCABULARY)
    return lambda *config: cross_entropy.statistics(logits, labels, 0, *config)


def _cross_entropy_gradient(rows: int, device: str, scaled: bool = False) -> Callable[..., Any]:
    logits, labels = _logits(device, DEVICE_LOGITS // VOCABULARY)
    maximum, total, _ = cross_entropy.statistics(logits, labels, 0)
    scale = torch.ones_like(maximum) if scaled else None
    return lambda *config: cross_entropy.gradient(
        logits, labels, 0, maximum, total, scale, 0.0, torch.bfloat16, *config
    )


def _paged_attention(rows: int, device: str) -> Callable[..., Any]:
    lanes, page = 32 * rows, 64
    q = _random(device, lanes, HEADS, HEAD_DIM)
    pages = [_random(device, lanes * SEQUENCE // page, page, KV_HEADS, HEAD_DIM) for _ in range(2)]
    table = torch.arange(lanes * SEQUENCE // page, dtype=torch.int32, device=device).view(lanes, -1)
    lengths = torch.full((lanes,), SEQUENCE, dtype=torch.int32, device=device)
    return lambda *config: paged_attention.attend(q, *pages, table, lengths, *config)


def _write_pages(rows: int, device: str) -> Callable[..., Any]:
    lanes, page = 32 * rows, 64
    pages = [_random(device, lanes, page, KV_HEADS, HEAD_DIM) for _ in range(2)]
    new = [_random(device, lanes, KV_HEADS, HEAD_DIM) for _ in range(2)]
    slots = torch.arange(lanes, device=device) * page
    return lambda: paged_attention.write(*pages, *new, slots)


def _invariant_linear(rows: int, device: str) -> Callable[..., Any]:
    x, weight = _random(device, 32 * rows, WIDTH), _random(device, FEED_FORWARD, WIDTH)
    return lambda *config: invariant_linear.product(x, weight, torch.bfloat16, *config)


def _sample(rows: int, device: str, top_p: float = 0.9) -> Callable[..., Any]:
    logits, _ = _logits(device, 32 * rows)
    address = torch.arange(3 * len(logits), device=device).view(-1, 3)
    return lambda *config: sample.sample(logits, 0.8, top_p, 0x0123456789ABCDEF, address, *config)


def _attended(
    rows: int, device: str, head_dim: int
) -> tuple[tuple[torch.Tensor, ...], torch.Tensor, torch.Tensor]:
    """Queries, keys, values; which keys each query sees, and which queries each key: whole rows."""
    q, k, v = (_random(device, rows, SEQUENCE, heads, head_dim) for heads in (HEADS, KV_HEADS, KV_HEADS))
    bounds = prepare_segments(torch.zeros(rows, SEQUENCE, dtype=torch.int32, device=device))
    return (q, k, v), bounds.keys, bounds.queries


def _attention_forward(rows: int, device: str, head_dim: int = HEAD_DIM) -> Callable[..., Any]:
    tensors, keys, _ = _attended(rows, device, head_dim)
    return lambda *config: attention.forward(*tensors, keys, *config)


def _attention_backward(
    rows: int, device: str, of_queries: bool, head_dim: int = HEAD_DIM
) -> Callable[..., Any]:
    tensors, keys, queries = _attended(rows, device, head_dim)
    grad, log_sums = torch.randn_like(tensors[0]), _random(device, rows, HEADS, SEQUENCE, dtype=torch.float32)
    given = (grad, *tensors, torch.randn_like(grad), log_sums, keys, queries)
    name = "query_config" if of_queries else "key_config"
    return lambda config=None: attention_backward.backward(*given, **{name: config})


LAUNCHES = (
    Launch("attention forward", _attention_forward, attention.CANDIDATES),
    Launch(
        "attention backward, of queries",
        functools.partial(_attention_backward, of_queries=True),
        attention_backward.QUERY_CANDIDATES,
    ),
    Launch(
        "attention backward, of keys",
        functools.partial(_attention_backward, of_queries=False),
        attention_backward.KEY_CANDIDATES,
    ),
    Launch("rms_norm forward", _rms_norm_forward, rms_norm.FORWARD_CANDIDATES),
    Launch("rms_norm backward", _rms_norm_backward, rms_norm.BACKWARD_CANDIDATES),
    Launch("add_rms_norm forward", _add_rms_norm_forward, rms_norm.FORWARD_CANDIDATES),
    Launch("add_rms_norm backward", _add_rms_norm_backward, rms_norm.BACKWARD_CANDIDATES),
    Launch("rope", _rope, rope.CANDIDATES),
    Launch("qk_norm_rope forward", _qk_norm_rope_forward, qk_norm_rope.CANDIDATES),
    Launch("qk_norm_rope backward", _qk_norm_rope_backward, qk_norm_rope.CANDIDATES),
    Launch("swiglu forward", _swiglu_forward, swiglu.CANDIDATES),
    Launch("swiglu backward", _swiglu_backward, swiglu.CANDIDATES),
    Launch("cross_entropy statistics", _cross_entropy_statistics, cross_entropy.CANDIDATES),
    Launch("cross_entropy gradient", _cross_entropy_gradient, cross_entropy.CANDIDATES),
    Launch("paged_attention", _paged_attention, paged_attention.CANDIDATES),
    Launch("write_pages", _write_pages),
    Launch("invariant_linear", _invariant_linear, invariant_linear.CANDIDATES),
    Launch("sample", _sample, sample.CANDIDATES),
)
_ONLY_FP32 = ("cross_entropy statistics", "sample")
# What the recipe does not ask for, and others do. Attention takes the longest to compile: its fp16 is that of
# one size of heads.
VARIANTS = (
    Launch("attention forward, heads of 64", functools.partial(_attention_forward, head_dim=64)),
    Launch(
        "attention backward, heads of 64",
        functools.partial(_attention_backward, of_queries=True, head_dim=64),
    ),
    Launch(
        "attention forward, heads of 96, fp16",
        functools.partial(_attention_forward, head_dim=96),
        in_fp16=True,
    ),
    Launch(
        "attention backward, heads of 96, fp16",
        functools.partial(_attention_backward, of_queries=True, head_dim=96),
        in_fp16=True,
    ),
    Launch("rope, backwards", functools.partial(_rope, direction=-1)),
    Launch("cross_entropy gradient, scaled", functools.partial(_cross_entropy_gradient, scaled=True)),
    Launch("sample, of all tokens", functools.partial(_sample, top_p=1.0)),
    *(
        dataclasses.replace(case, name=f"{case.name}, fp16", candidates=(), in_fp16=True)
        for case in LAUNCHES
        if not case.name.startswith("attention") and case.name not in _ONLY_FP32
    ),
)
