"""Rotations of queries and keys in one launch.

A program takes some tokens and keeps their cosines and sines in registers while it walks over the heads.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import Config, processors

# Tokens of a program.
_CONFIG = Config(blocks=(16,), warps=4, stages=1)
CANDIDATES = tuple(
    Config((tokens,), warps, 1) for tokens, warps in ((8, 2), (16, 4), (32, 4), (32, 8), (64, 8))
)


def rotate(
    q: Tensor, k: Tensor, table: Tensor, direction: int, config: Config = _CONFIG
) -> tuple[Tensor, Tensor]:
    """Both rotated; contiguous [B, S, H, E], [B, S, K, E] and [2, B, S, 1, E]."""
    turned_q, turned_k = torch.empty_like(q), torch.empty_like(k)
    tokens = q.shape[0] * q.shape[1]
    if tokens:
        rope_rotate[head_grid(q, k, config)](
            q,
            k,
            turned_q,
            turned_k,
            table,
            tokens,
            Q_HEADS=q.shape[2],
            K_HEADS=k.shape[2],
            HEAD_DIM=q.shape[3],
            TOKENS=config.blocks[0],
            BLOCK=triton.next_power_of_2(q.shape[3] // 2),
            BACKWARDS=direction < 0,
            num_warps=config.warps,
        )
    return turned_q, turned_k


def head_grid(q: Tensor, k: Tensor, config: Config) -> tuple[int, int]:
    """Programs along the tokens, and along the heads where the tokens are too few to fill the device."""
    blocks = triton.cdiv(q.shape[0] * q.shape[1], config.blocks[0])
    heads = q.shape[2] + k.shape[2]
    return blocks, min(heads, triton.cdiv(8 * processors(q), blocks))


@triton.jit
def rope_rotate(
    q_ptr,
    k_ptr,
    turned_q_ptr,
    turned_k_ptr,
    table_ptr,
    tokens,
    Q_HEADS: tl.constexpr,
    K_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    TOKENS: tl.constexpr,
    BLOCK: tl.constexpr,
    BACKWARDS: tl.constexpr,
):
    token, element, inside = token_block(tl.program_id(0), tokens, HEAD_DIM, TOKENS, BLOCK)
    cosine, sine = load_rotation(table_ptr, tokens, token, element, inside, HEAD_DIM, BACKWARDS)
    for head in range(tl.program_id(1), Q_HEADS, tl.num_programs(1)):
        place = (token * Q_HEADS + head) * HEAD_DIM + element
        first, second = load_halves(q_ptr, place, inside, HEAD_DIM)
        store_turned(turned_q_ptr, place, inside, first, second, cosine, sine, HEAD_DIM)
    for head in range(tl.program_id(1), K_HEADS, tl.num_programs(1)):
        place = (token * K_HEADS + head) * HEAD_DIM + element
        first, second = load_halves(k_ptr, place, inside, HEAD_DIM)
        store_turned(turned_k_ptr, place, inside, first, second, cosine, sine, HEAD_DIM)


@triton.jit
def token_block(block, tokens, HEAD_DIM: tl.constexpr, TOKENS: tl.constexpr, BLOCK: tl.constexpr):
    """Tokens [TOKENS, 1] and elements [1, BLOCK] of a half head, and which of both there are."""
    token = (block * TOKENS + tl.arange(0, TOKENS).to(tl.int64))[:, None]
    element = tl.arange(0, BLOCK)[None, :]
    return token, element, (token < tokens) & (element < HEAD_DIM // 2)


@triton.jit
def load_rotation(table_ptr, tokens, token, element, inside, HEAD_DIM: tl.constexpr, BACKWARDS: tl.constexpr):
    """Cosines and sines [TOKENS, BLOCK]. The table has them for both halves, sines with both signs."""
    place = token * HEAD_DIM + element
    cosine = tl.load(table_ptr + place, inside, other=0.0)
    positive_sines = table_ptr + tl.cast(tokens, tl.int64) * HEAD_DIM + HEAD_DIM // 2
    sine = tl.load(positive_sines + place, inside, other=0.0)
    if BACKWARDS:
        sine = -sine
    return cosine, sine


@triton.jit
def load_halves(x_ptr, place, inside, HEAD_DIM: tl.constexpr):
    first = tl.load(x_ptr + place, inside, other=0.0).to(tl.float32)
    second = tl.load(x_ptr + place + HEAD_DIM // 2, inside, other=0.0).to(tl.float32)
    return first, second


@triton.jit
def store_turned(x_ptr, place, inside, first, second, cosine, sine, HEAD_DIM: tl.constexpr):
    turned_first = first * cosine - second * sine
    turned_second = second * cosine + first * sine
    tl.store(x_ptr + place, turned_first.to(x_ptr.dtype.element_ty), inside)
    tl.store(x_ptr + place + HEAD_DIM // 2, turned_second.to(x_ptr.dtype.element_ty), inside)
