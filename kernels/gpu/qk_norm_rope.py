"""Norm and rotation of the heads of queries and keys, forwards and backwards, each head read once.

A program takes some tokens, keeps their cosines and sines in registers, and walks over the heads. Backwards
the programs are as many as the device runs at once; each sums the weights' gradients of its tokens, and those
sums are added in order: the same bits every time on one device.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import Config, processors
from .rope import head_grid, load_halves, load_rotation, store_turned, token_block

# Tokens of a program.
_FORWARD = Config(blocks=(16,), warps=4, stages=1)
_BACKWARD = Config(blocks=(16,), warps=4, stages=1)
CANDIDATES = tuple(
    Config((tokens,), warps, 1) for tokens, warps in ((8, 2), (16, 4), (32, 4), (32, 8), (64, 8))
)
# Programs of the backward pass per multiprocessor.
_BACKWARD_PROGRAMS = 4


def forward(
    q: Tensor,
    k: Tensor,
    q_weight: Tensor,
    k_weight: Tensor,
    table: Tensor,
    eps: float,
    config: Config = _FORWARD,
) -> tuple[Tensor, Tensor]:
    """Normalised and rotated; contiguous [B, S, H, E], [B, S, K, E], [E], [E] and [2, B, S, 1, E]."""
    turned_q, turned_k = torch.empty_like(q), torch.empty_like(k)
    tokens = q.shape[0] * q.shape[1]
    if tokens:
        qk_norm_rope_forward[head_grid(q, k, config)](
            q,
            k,
            q_weight,
            k_weight,
            table,
            turned_q,
            turned_k,
            tokens,
            eps,
            Q_HEADS=q.shape[2],
            K_HEADS=k.shape[2],
            HEAD_DIM=q.shape[3],
            TOKENS=config.blocks[0],
            BLOCK=triton.next_power_of_2(q.shape[3] // 2),
            num_warps=config.warps,
        )
    return turned_q, turned_k


def backward(
    grad_q: Tensor,
    grad_k: Tensor,
    q: Tensor,
    k: Tensor,
    q_weight: Tensor,
    k_weight: Tensor,
    table: Tensor,
    eps: float,
    config: Config = _BACKWARD,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of queries, keys and both weights."""
    out_q, out_k = torch.empty_like(q), torch.empty_like(k)
    tokens, head_dim = q.shape[0] * q.shape[1], q.shape[3]
    programs = min(triton.cdiv(tokens, config.blocks[0]), _BACKWARD_PROGRAMS * processors(q))
    parts = q.new_empty(programs, 2, head_dim, dtype=torch.float32)
    if programs:
        qk_norm_rope_backward[(programs,)](
            grad_q,
            grad_k,
            q,
            k,
            q_weight,
            k_weight,
            table,
            out_q,
            out_k,
            parts,
            tokens,
            eps,
            Q_HEADS=q.shape[2],
            K_HEADS=k.shape[2],
            HEAD_DIM=head_dim,
            TOKENS=config.blocks[0],
            BLOCK=triton.next_power_of_2(head_dim // 2),
            num_warps=config.warps,
        )
    q_sum, k_sum = parts.sum(0)
    return out_q, out_k, q_sum.to(q_weight.dtype), k_sum.to(k_weight.dtype)


@triton.jit
def qk_norm_rope_forward(
    q_ptr,
    k_ptr,
    q_weight_ptr,
    k_weight_ptr,
    table_ptr,
    turned_q_ptr,
    turned_k_ptr,
    tokens,
    eps,
    Q_HEADS: tl.constexpr,
    K_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    TOKENS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    token, element, inside = token_block(tl.program_id(0), tokens, HEAD_DIM, TOKENS, BLOCK)
    cosine, sine = load_rotation(table_ptr, tokens, token, element, inside, HEAD_DIM, False)
    first_weight, second_weight = load_halves(q_weight_ptr, element, element < HEAD_DIM // 2, HEAD_DIM)
    for head in range(tl.program_id(1), Q_HEADS, tl.num_programs(1)):
        place = (token * Q_HEADS + head) * HEAD_DIM + element
        first, second, _ = load_normalised(q_ptr, place, inside, eps, HEAD_DIM)
        first, second = first * first_weight, second * second_weight
        store_turned(turned_q_ptr, place, inside, first, second, cosine, sine, HEAD_DIM)
    first_weight, second_weight = load_halves(k_weight_ptr, element, element < HEAD_DIM // 2, HEAD_DIM)
    for head in range(tl.program_id(1), K_HEADS, tl.num_programs(1)):
        place = (token * K_HEADS + head) * HEAD_DIM + element
        first, second, _ = load_normalised(k_ptr, place, inside, eps, HEAD_DIM)
        first, second = first * first_weight, second * second_weight
        store_turned(turned_k_ptr, place, inside, first, second, cosine, sine, HEAD_DIM)


@triton.jit
def qk_norm_rope_backward(
    grad_q_ptr,
    grad_k_ptr,
    q_ptr,
    k_ptr,
    q_weight_ptr,
    k_weight_ptr,
    table_ptr,
    out_q_ptr,
    out_k_ptr,
    parts_ptr,
    tokens,
    eps,
    Q_HEADS: tl.constexpr,
    K_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    TOKENS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    q_part_ptr = parts_ptr + tl.program_id(0) * (2 * HEAD_DIM)
    backward_heads(
        *(grad_q_ptr, q_ptr, q_weight_ptr, table_ptr, out_q_ptr, q_part_ptr),
        *(tokens, eps, Q_HEADS, HEAD_DIM, TOKENS, BLOCK),
    )
    backward_heads(
        *(grad_k_ptr, k_ptr, k_weight_ptr, table_ptr, out_k_ptr, q_part_ptr + HEAD_DIM),
        *(tokens, eps, K_HEADS, HEAD_DIM, TOKENS, BLOCK),
    )


@triton.jit
def backward_heads(
    grad_ptr,
    x_ptr,
    weight_ptr,
    table_ptr,
    out_ptr,
    part_ptr,
    tokens,
    eps,
    HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    TOKENS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    element = tl.arange(0, BLOCK)[None, :]
    here = element < HEAD_DIM // 2
    first_weight, second_weight = load_halves(weight_ptr, element, here, HEAD_DIM)
    # Summed over the tokens at the end only: that needs all threads.
    first_sum = tl.zeros([TOKENS, BLOCK], tl.float32)
    second_sum = tl.zeros([TOKENS, BLOCK], tl.float32)
    for block in range(tl.program_id(0), tl.cdiv(tokens, TOKENS), tl.num_programs(0)):
        token, element, inside = token_block(block, tokens, HEAD_DIM, TOKENS, BLOCK)
        cosine, sine = load_rotation(table_ptr, tokens, token, element, inside, HEAD_DIM, False)
        for head in range(HEADS):
            place = (token * HEADS + head) * HEAD_DIM + element
            turned_first, turned_second = load_halves(grad_ptr, place, inside, HEAD_DIM)
            first, second, scale = load_normalised(x_ptr, place, inside, eps, HEAD_DIM)
            first_grad = turned_first * cosine + turned_second * sine
            second_grad = turned_second * cosine - turned_first * sine
            first_sum += first_grad * first
            second_sum += second_grad * second
            first_grad *= first_weight
            second_grad *= second_weight
            # The norm takes away the component of the gradient that only changes the head's length.
            along = tl.sum(first_grad * first + second_grad * second, 1)[:, None] / HEAD_DIM
            first_grad = (first_grad - first * along) * scale
            second_grad = (second_grad - second * along) * scale
            tl.store(out_ptr + place, first_grad.to(out_ptr.dtype.element_ty), inside)
            tl.store(out_ptr + place + HEAD_DIM // 2, second_grad.to(out_ptr.dtype.element_ty), inside)
    tl.store(part_ptr + element, tl.sum(first_sum, 0)[None, :], here)
    tl.store(part_ptr + element + HEAD_DIM // 2, tl.sum(second_sum, 0)[None, :], here)


@triton.jit
def load_normalised(x_ptr, place, inside, eps, HEAD_DIM: tl.constexpr):
    """Both halves of heads of length 1, and what they were multiplied with [TOKENS, 1]."""
    first, second = load_halves(x_ptr, place, inside, HEAD_DIM)
    scale = tl.rsqrt(tl.sum(first * first + second * second, 1)[:, None] / HEAD_DIM + eps)
    return first * scale, second * scale, scale
