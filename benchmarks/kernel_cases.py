"""The kernels that are timed, beside the same in plain PyTorch and Liger, at the sizes of the 3B recipe."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn import functional

from benchmarks.kernel_launches import FEED_FORWARD, HEAD_DIM, HEADS, KV_HEADS, SEQUENCE, VOCABULARY, WIDTH
from megasbp.kernels.attention import SegmentBounds, attention, prepare_segments
from megasbp.kernels.cross_entropy import cross_entropy
from megasbp.kernels.linear_cross_entropy import linear_cross_entropy
from megasbp.kernels.paged_attention import paged_attention
from megasbp.kernels.qk_norm_rope import qk_norm_rope
from megasbp.kernels.rms_norm import add_rms_norm, rms_norm
from megasbp.kernels.rope import rotate, rotation_table
from megasbp.kernels.swiglu import swiglu
from megasbp.model.paged_cache import PAGE_TOKENS

_EPSILON = 1e-6
_THETA = 1e6
_BF16, _FP32 = 2, 4

Tensors = tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class Case:
    """One kernel with its backward pass.

    Attributes:
        inputs: inputs(tokens, device): what the functions take. Those that require gradients get them.
        ours, plain: the kernel, and the formula as one writes it in PyTorch, which torch.compile gets too.
        work: of one token, by direction, "forward" and "backward", or "both" for one pass over both: bytes,
            each input read once and each output written once, or operations. Without gradients "forward".
        counts_operations: whether `work` is operations.
        liger: the same function of Liger, given its module `liger_kernel.transformers.functional`; None where
            it has none.
        rivals: others that run on a GPU.
        compiles: False where torch.compile has nothing of its own to make.
        tokens: of a call on a GPU.
        cpu_tokens: of a call on a CPU, which multiplies a thousandth as fast.
    """

    name: str
    inputs: Callable[[int, str], Tensors]
    ours: Callable[..., Any]
    plain: Callable[..., Any]
    work: Mapping[str, float]
    counts_operations: bool = False
    liger: Callable[[Any], Callable[..., Any]] | None = None
    rivals: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    compiles: bool = True
    tokens: int = 32_768
    cpu_tokens: int = 1024


def _bytes(forward: int, backward: int) -> dict[str, float]:
    return {"forward": forward, "backward": backward}


def _stream(tokens: int, device: str, width: int) -> torch.Tensor:
    return torch.randn(1, tokens, width, device=device, dtype=torch.bfloat16, requires_grad=True)


def _weight(device: str, size: int) -> torch.Tensor:
    return torch.randn(size, device=device, requires_grad=True)


def _plain_norm(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    x_math = x.float()
    return (x_math * torch.rsqrt(x_math.square().mean(-1, keepdim=True) + _EPSILON) * weight).to(x.dtype)


def _plain_sum_and_norm(x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor) -> Tensors:
    total = x + residual
    return total, _plain_norm(total, weight)


def _plain_turn(x: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    first, second = x.chunk(2, -1)
    return (x * table[0] + torch.cat((second, first), -1) * table[1]).to(x.dtype)


def _plain_rotate(q: torch.Tensor, k: torch.Tensor, table: torch.Tensor) -> Tensors:
    return _plain_turn(q, table), _plain_turn(k, table)


def _plain_norm_and_rotate(
    q: torch.Tensor, k: torch.Tensor, q_weight: torch.Tensor, k_weight: torch.Tensor, table: torch.Tensor
) -> Tensors:
    return _plain_rotate(_plain_norm(q, q_weight), _plain_norm(k, k_weight), table)


def _plain_swiglu(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.silu(gate) * up


def _heads(tokens: int, device: str) -> Tensors:
    return tuple(
        _stream(tokens, device, heads * HEAD_DIM).detach().unflatten(-1, (heads, HEAD_DIM)).requires_grad_()
        for heads in (HEADS, KV_HEADS)
    )


def _table(tokens: int, device: str) -> torch.Tensor:
    return rotation_table(torch.arange(tokens, device=device)[None] % 4096, HEAD_DIM, _THETA)


def _liger_rope(liger: Any) -> Callable[..., Any]:
    def turned(q: torch.Tensor, k: torch.Tensor, table: torch.Tensor) -> Tensors:
        # Heads come before tokens there, and the sines of both halves have one sign.
        cosines, sines = table[0, :, :, 0], table[1, :, :, 0, HEAD_DIM // 2 :].repeat(1, 1, 2)
        return liger.liger_rope(q.transpose(1, 2), k.transpose(1, 2), cosines, sines)

    return turned


def _queries_keys_values(tokens: int, device: str) -> Tensors:
    """Rows of SEQUENCE tokens, or one shorter row."""
    size = min(tokens, SEQUENCE)
    return tuple(
        torch.randn(
            tokens // size, size, heads, HEAD_DIM, device=device, dtype=torch.bfloat16, requires_grad=True
        )
        for heads in (HEADS, KV_HEADS, KV_HEADS)
    )


@functools.cache
def _documents(rows: int, size: int, device: str, tokens: int) -> SegmentBounds:
    """Documents of so many tokens, one behind the other; the last of a row may be shorter."""
    return prepare_segments((torch.arange(size, device=device) // tokens).expand(rows, -1).contiguous())


def _attend(document_tokens: int) -> Callable[..., torch.Tensor]:
    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return attention(q, k, v, _documents(*q.shape[:2], q.device.type, document_tokens))

    return attend


def _attend_in_torch(document_tokens: int) -> Callable[..., torch.Tensor]:
    """torch's best backend for whole rows; documents need a mask."""

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        whole = document_tokens >= q.shape[1]
        mask = None if whole else _documents(*q.shape[:2], q.device.type, document_tokens).mask
        heads_first = (x.transpose(1, 2) for x in (q, k, v))
        return functional.scaled_dot_product_attention(
            *heads_first, attn_mask=mask, is_causal=whole, enable_gqa=True
        ).transpose(1, 2)

    return attend


def _attend_in_flex(document_tokens: int) -> Callable[..., torch.Tensor]:
    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return attention(q, k, v, _documents(*q.shape[:2], q.device.type, document_tokens), backend="flex")

    return attend


def _attention_work(tokens: int) -> dict[str, float]:
    """Two products forwards and five backwards, over the half of a document's square that is seen."""
    product = tokens * HEADS * HEAD_DIM
    return {"forward": 2 * product, "backward": 5 * product}


def _attention(name: str, document_tokens: int) -> Case:
    return Case(
        name,
        _queries_keys_values,
        _attend(document_tokens),
        _attend_in_torch(document_tokens),
        _attention_work(document_tokens),
        counts_operations=True,
        rivals={"FlexAttention, compiled": _attend_in_flex(document_tokens)},
        compiles=False,
    )


def _loss_inputs(tokens: int, device: str) -> Tensors:
    weight = torch.randn(VOCABULARY, WIDTH, device=device, dtype=torch.bfloat16) / WIDTH**0.5
    return (
        _stream(tokens, device, WIDTH),
        weight.requires_grad_(),
        torch.randint(VOCABULARY, (1, tokens), device=device),
    )


def _plain_loss(hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    logits = functional.linear(hidden, weight).flatten(0, 1)
    return functional.cross_entropy(logits.float(), labels.flatten(), reduction="sum")


def _liger_loss(liger: Any) -> Callable[..., Any]:
    def loss(hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        flat = hidden.flatten(0, 1), weight, labels.flatten()
        return liger.liger_fused_linear_cross_entropy(*flat, reduction="sum")

    return loss


def _logits(tokens: int, device: str) -> Tensors:
    """As the products give them: fp32."""
    logits = torch.randn(tokens, VOCABULARY, device=device, requires_grad=True)
    return logits, torch.randint(VOCABULARY, (tokens,), device=device)


def _plain_cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(logits, labels, reduction="sum")


def _pages(tokens: int, device: str) -> Tensors:
    """Caches of so many tokens in all, of eight or more sequences up to SEQUENCE, their pages in no order."""
    size = min(tokens // 8, SEQUENCE)
    rows, each = tokens // size, size // PAGE_TOKENS
    keys, values = (
        torch.randn(rows * each, PAGE_TOKENS, KV_HEADS, HEAD_DIM, device=device, dtype=torch.bfloat16)
        for _ in range(2)
    )
    queries = torch.randn(rows, HEADS, HEAD_DIM, device=device, dtype=torch.bfloat16)
    table = torch.randperm(rows * each, device=device).int().view(rows, each)
    lengths = torch.full((rows,), each * PAGE_TOKENS, device=device, dtype=torch.int32)
    return queries, keys, values, table, lengths


def _plain_paged(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    table: torch.Tensor,
    lengths: torch.Tensor,
) -> torch.Tensor:
    """All sequences are full, so the lengths mask nothing."""
    heads_first = (pages[table.long()].flatten(1, 2).transpose(1, 2) for pages in (keys, values))
    return functional.scaled_dot_product_attention(
        queries[:, :, None], *heads_first, enable_gqa=True
    ).squeeze(2)


_HEAD_WIDTH = (HEADS + KV_HEADS) * HEAD_DIM
# The cosines and sines of a token, both halves of a head alike.
_TABLE = HEAD_DIM * _FP32
CASES = (
    Case(
        "rms_norm",
        lambda tokens, device: (_stream(tokens, device, WIDTH), _weight(device, WIDTH)),
        lambda x, weight: rms_norm(x, weight, _EPSILON),
        _plain_norm,
        _bytes(2 * WIDTH * _BF16 + _FP32, 3 * WIDTH * _BF16 + _FP32),
        liger=lambda liger: lambda x, weight: liger.liger_rms_norm(x, weight, _EPSILON, in_place=False),
    ),
    Case(
        "add_rms_norm",
        lambda tokens, device: (
            _stream(tokens, device, WIDTH),
            _stream(tokens, device, WIDTH),
            _weight(device, WIDTH),
        ),
        lambda x, residual, weight: add_rms_norm(x, residual, weight, _EPSILON),
        _plain_sum_and_norm,
        _bytes(4 * WIDTH * _BF16 + _FP32, 4 * WIDTH * _BF16 + _FP32),
        liger=lambda liger: (
            # It gives the norm first, then the sum.
            lambda x, residual, weight: liger.liger_fused_add_rms_norm(
                x, residual, weight, _EPSILON, in_place=False
            )[::-1]
        ),
    ),
    Case(
        "rope",
        lambda tokens, device: (*_heads(tokens, device), _table(tokens, device)),
        rotate,
        _plain_rotate,
        _bytes(2 * _HEAD_WIDTH * _BF16 + _TABLE, 2 * _HEAD_WIDTH * _BF16 + _TABLE),
        liger=_liger_rope,
    ),
    Case(
        "qk_norm_rope",
        lambda tokens, device: (
            *_heads(tokens, device),
            _weight(device, HEAD_DIM),
            _weight(device, HEAD_DIM),
            _table(tokens, device),
        ),
        lambda *tensors: qk_norm_rope(*tensors, _EPSILON),
        _plain_norm_and_rotate,
        _bytes(2 * _HEAD_WIDTH * _BF16 + _TABLE, 3 * _HEAD_WIDTH * _BF16 + _TABLE),
    ),
    Case(
        "swiglu",
        lambda tokens, device: (
            _stream(tokens, device, FEED_FORWARD),
            _stream(tokens, device, FEED_FORWARD),
        ),
        swiglu,
        _plain_swiglu,
        _bytes(3 * FEED_FORWARD * _BF16, 5 * FEED_FORWARD * _BF16),
        liger=lambda liger: liger.liger_swiglu,
    ),
    _attention("attention, whole rows", SEQUENCE),
    _attention("attention, documents of 512", 512),
    Case(
        "cross_entropy",
        _logits,
        cross_entropy,
        _plain_cross_entropy,
        # Rows are too long to stay on the chip: read for the sums, read and written for the gradient.
        {"both": 3 * VOCABULARY * _FP32},
        liger=lambda liger: lambda logits, labels: liger.liger_cross_entropy(logits, labels, reduction="sum"),
        tokens=4096,
        cpu_tokens=128,
    ),
    Case(
        "paged_attention",
        _pages,
        paged_attention,
        _plain_paged,
        {"forward": 2 * KV_HEADS * HEAD_DIM * _BF16},
        tokens=2**20,
    ),
    Case(
        "linear_cross_entropy",
        _loss_inputs,
        linear_cross_entropy,
        _plain_loss,
        # Three products.
        {"both": 6 * WIDTH * VOCABULARY},
        counts_operations=True,
        liger=_liger_loss,
        cpu_tokens=128,
    ),
)
