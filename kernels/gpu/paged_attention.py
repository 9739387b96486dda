"""Attention of single queries to pages of keys and values.

Reading the cache is all the work: 4 * E bytes of bf16 a token and key-value head, for 4 * E operations a
query head. The query heads of one key-value head are the rows of one matrix product: the cache is read once
for all of them. A program takes a fixed number of tokens of one sequence and head; a second kernel weights
the parts of a sequence in their order. Parts begin at fixed tokens, whoever else is there.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import Config

# Blocks: tokens of a part, and of one step of its program. A part reads 4 * E bytes a token, and leaves 4 * E
# for each query head to be read again: at 512 tokens and three heads one percent. A stage reads the page
# table ahead and another the pages, 32 KiB: a multiprocessor's five programs have 160 KiB on their way.
DEFAULT = Config(blocks=(512, 64), warps=4, stages=3)
WIDE = Config(blocks=(512, 32), warps=8, stages=3)
CANDIDATES = (Config((512, 64), 4, 5), Config((512, 128), 4, 2), Config((256, 64), 4, 3), WIDE)


def config_of(head_dim: int, element: int) -> Config:
    """By the bytes of a token's keys of one head."""
    return DEFAULT if head_dim * element <= 256 else WIDE


def attend(
    q: Tensor,
    key_pages: Tensor,
    value_pages: Tensor,
    page_table: Tensor,
    lengths: Tensor,
    config: Config | None = None,
) -> Tensor:
    """Of `paged_attention`; contiguous tensors."""
    rows, heads, head_dim = q.shape
    _, page, kv_heads, _ = key_pages.shape
    part, block = (config := config or config_of(head_dim, q.element_size())).blocks
    parts = triton.cdiv(page_table.shape[1] * page, part)
    result = torch.empty_like(q)
    mixed = q.new_empty(rows, heads, parts, head_dim, dtype=torch.float32)
    logarithms = q.new_empty(rows, heads, parts, dtype=torch.float32)
    if not rows:
        return result
    head_block = max(16, triton.next_power_of_2(head_dim))
    if parts:
        paged_attention_parts[(rows, kv_heads, parts)](
            q,
            key_pages,
            value_pages,
            page_table,
            lengths,
            mixed,
            logarithms,
            page_table.shape[1],
            # Powers of two are what a GPU computes.
            head_dim**-0.5 * 1.4426950408889634,
            PAGE=page,
            KV_HEADS=kv_heads,
            GROUP=heads // kv_heads,
            HEAD_DIM=head_dim,
            GROUP_BLOCK=max(16, triton.next_power_of_2(heads // kv_heads)),
            HEAD_BLOCK=head_block,
            PART=part,
            BLOCK=block,
            num_warps=config.warps,
            num_stages=config.stages,
        )
    paged_attention_combine[(rows, heads)](
        mixed,
        logarithms,
        lengths,
        result,
        parts,
        HEADS=heads,
        HEAD_DIM=head_dim,
        HEAD_BLOCK=head_block,
        PART=part,
        num_warps=1,
    )
    return result


def write(key_pages: Tensor, value_pages: Tensor, keys: Tensor, values: Tensor, slots: Tensor) -> None:
    """Of `write_pages`; contiguous tensors."""
    tokens, size = len(slots), key_pages[0, 0].numel()
    if tokens:
        block = triton.next_power_of_2(size)
        paged_attention_write[(tokens,)](
            keys,
            values,
            slots,
            key_pages,
            value_pages,
            SIZE=size,
            BLOCK=block,
            num_warps=min(8, max(1, block // 256)),
        )


@triton.jit
def paged_attention_parts(
    q_ptr,
    keys_ptr,
    values_ptr,
    table_ptr,
    lengths_ptr,
    mixed_ptr,
    logarithms_ptr,
    pages_of_row,
    scale,
    PAGE: tl.constexpr,
    KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    GROUP_BLOCK: tl.constexpr,
    HEAD_BLOCK: tl.constexpr,
    PART: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    kv_head = tl.program_id(1)
    part = tl.program_id(2)
    length = tl.load(lengths_ptr + row)
    begin = part * PART
    if begin < length:
        end = tl.minimum(begin + PART, length)
        member = tl.arange(0, GROUP_BLOCK)
        column = tl.arange(0, HEAD_BLOCK)
        head = row * KV_HEADS * GROUP + kv_head * GROUP + member
        exists = (member < GROUP)[:, None] & (column < HEAD_DIM)[None, :]
        q = tl.load(q_ptr + head[:, None] * HEAD_DIM + column[None, :], exists, other=0.0)
        maximum = tl.full([GROUP_BLOCK], -float("inf"), tl.float32)
        total = tl.zeros([GROUP_BLOCK], tl.float32)
        mixed = tl.zeros([GROUP_BLOCK, HEAD_BLOCK], tl.float32)
        for start in tl.range(begin, end, BLOCK):
            token = start + tl.arange(0, BLOCK)
            page = tl.load(table_ptr + row * pages_of_row + token // PAGE, token < end, other=0)
            place = (page.to(tl.int64) * PAGE + token % PAGE) * KV_HEADS + kv_head
            offset = place[:, None] * HEAD_DIM + column[None, :]
            inside = (token < end)[:, None] & (column < HEAD_DIM)[None, :]
            keys = tl.load(keys_ptr + offset, inside, other=0.0)
            values = tl.load(values_ptr + offset, inside, other=0.0)
            scores = tl.dot(q, tl.trans(keys), input_precision="ieee") * scale
            scores = tl.where((token < end)[None, :], scores, -float("inf"))
            # A step has a token at least, so the largest score is no infinity.
            largest = tl.maximum(maximum, tl.max(scores, 1))
            weights = tl.exp2(scores - largest[:, None])
            faded = tl.exp2(maximum - largest)
            total = total * faded + tl.sum(weights, 1)
            mixed = mixed * faded[:, None]
            mixed = tl.dot(weights.to(values.dtype), values, mixed, input_precision="ieee")
            maximum = largest
        place = head * tl.cdiv(pages_of_row * PAGE, PART) + part
        tl.store(mixed_ptr + place[:, None] * HEAD_DIM + column[None, :], mixed / total[:, None], exists)
        tl.store(logarithms_ptr + place, maximum + tl.log2(total), member < GROUP)


@triton.jit
def paged_attention_combine(
    mixed_ptr,
    logarithms_ptr,
    lengths_ptr,
    result_ptr,
    parts,
    HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    HEAD_BLOCK: tl.constexpr,
    PART: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    head = row * HEADS + tl.program_id(1)
    column = tl.arange(0, HEAD_BLOCK)
    exists = column < HEAD_DIM
    maximum = -float("inf")
    total = 0.0
    result = tl.zeros([HEAD_BLOCK], tl.float32)
    for part in tl.range(0, tl.cdiv(tl.load(lengths_ptr + row), PART)):
        logarithm = tl.load(logarithms_ptr + head * parts + part)
        mixed = tl.load(mixed_ptr + (head * parts + part) * HEAD_DIM + column, exists, other=0.0)
        largest = tl.maximum(maximum, logarithm)
        faded = tl.exp2(maximum - largest)
        weight = tl.exp2(logarithm - largest)
        total = total * faded + weight
        result = result * faded + mixed * weight
        maximum = largest
    # An empty lane has no parts: zeros.
    result = result / tl.maximum(total, 1.0)
    tl.store(result_ptr + head * HEAD_DIM + column, result.to(result_ptr.dtype.element_ty), exists)


@triton.jit
def paged_attention_write(
    keys_ptr,
    values_ptr,
    slots_ptr,
    key_pages_ptr,
    value_pages_ptr,
    SIZE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    slot = tl.load(slots_ptr + token)
    column = tl.arange(0, BLOCK)
    written = (column < SIZE) & (slot >= 0)
    keys = tl.load(keys_ptr + token * SIZE + column, written)
    values = tl.load(values_ptr + token * SIZE + column, written)
    tl.store(key_pages_ptr + slot * SIZE + column, keys, written)
    tl.store(value_pages_ptr + slot * SIZE + column, values, written)
