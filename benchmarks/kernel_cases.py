"""The kernels that are timed, beside the same in plain PyTorch and Liger, at the sizes of the 3B recipe."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.kernel_launches import FEED_FORWARD, HEAD_DIM, HEADS, KV_HEADS, WIDTH
from megasbp.kernels.qk_norm_rope import qk_norm_rope
from megasbp.kernels.rms_norm import add_rms_norm, rms_norm
from megasbp.kernels.rope import rotate, rotation_table
from megasbp.kernels.swiglu import swiglu

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
        liger: the same function of Liger, given its module `liger_kernel.transformers.functional`; None where
            it has none.
        forward_bytes, backward_bytes: of one token: each input read once, each output written once.
    """

    name: str
    inputs: Callable[[int, str], Tensors]
    ours: Callable[..., Any]
    plain: Callable[..., Any]
    forward_bytes: int
    backward_bytes: int
    liger: Callable[[Any], Callable[..., Any]] | None = None


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
        # Its sines have the sign of the first half, and heads come before tokens.
        cosines, sines = table[0, :, :, 0], table[1, :, :, 0].abs()
        return liger.liger_rope(q.transpose(1, 2), k.transpose(1, 2), cosines, sines)

    return turned


_HEAD_WIDTH = (HEADS + KV_HEADS) * HEAD_DIM
# The cosines and sines of a token, both halves of a head alike.
_TABLE = HEAD_DIM * _FP32
CASES = (
    Case(
        "rms_norm",
        lambda tokens, device: (_stream(tokens, device, WIDTH), _weight(device, WIDTH)),
        lambda x, weight: rms_norm(x, weight, _EPSILON),
        _plain_norm,
        2 * WIDTH * _BF16 + _FP32,
        3 * WIDTH * _BF16 + _FP32,
        lambda liger: lambda x, weight: liger.liger_rms_norm(x, weight, _EPSILON, in_place=False),
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
        4 * WIDTH * _BF16 + _FP32,
        4 * WIDTH * _BF16 + _FP32,
        lambda liger: (
            lambda x, residual, weight: liger.liger_fused_add_rms_norm(
                x, residual, weight, _EPSILON, in_place=False
            )
        ),
    ),
    Case(
        "rope",
        lambda tokens, device: (*_heads(tokens, device), _table(tokens, device)),
        rotate,
        _plain_rotate,
        2 * _HEAD_WIDTH * _BF16 + _TABLE,
        2 * _HEAD_WIDTH * _BF16 + _TABLE,
        _liger_rope,
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
        2 * _HEAD_WIDTH * _BF16 + _TABLE,
        3 * _HEAD_WIDTH * _BF16 + _TABLE,
    ),
    Case(
        "swiglu",
        lambda tokens, device: (
            _stream(tokens, device, FEED_FORWARD),
            _stream(tokens, device, FEED_FORWARD),
        ),
        swiglu,
        _plain_swiglu,
        3 * FEED_FORWARD * _BF16,
        5 * FEED_FORWARD * _BF16,
        lambda liger: liger.liger_swiglu,
    ),
)
