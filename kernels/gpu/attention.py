"""Attention in tiles (Dao, "FlashAttention-2", arXiv 2307.08691), where each query sees one run of keys.

A program walks the keys that any of its queries sees; scores never leave it. Tiles that all of its queries
see whole go without a mask. `attention_backward` has the gradients.

On Hopper and later GPUs tiles are fetched by the copy engine, which knows a tensor by its descriptor: no
thread holds addresses, and the registers that frees keep the sums from being spilled.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from .launch import Config, copies_tiles, has_room, head_block

# By bytes of an element and `head_block`.
Table = dict[tuple[int, int], Config]
# (Queries, keys) of a tile. fp32 has no matrix instruction.
CONFIGS: Table = {
    (2, 16): Config((128, 64), warps=4, stages=3),
    (2, 32): Config((128, 64), warps=4, stages=3),
    (2, 64): Config((128, 64), warps=4, stages=3),
    (2, 128): Config((128, 128), warps=8, stages=3),
    (4, 16): Config((32, 32), warps=4, stages=1),
    (4, 32): Config((32, 32), warps=4, stages=1),
    (4, 64): Config((32, 32), warps=4, stages=1),
    (4, 128): Config((32, 16), warps=4, stages=1),
}
# Instead of these, where there is less shared memory.
SMALL_CONFIGS: Table = {
    (2, 64): Config((64, 64), warps=4, stages=2),
    (2, 128): Config((64, 64), warps=4, stages=2),
}
# Others of 16-bit types that a tuner may try.
CANDIDATES = (
    *(Config((64, 64), 4, stages) for stages in (2, 3)),
    *(Config((128, 32), warps, 4) for warps in (4, 8)),
    *(Config((128, 64), 8, stages) for stages in (2, 3)),
    *(Config((128, 128), 8, stages) for stages in (2, 3)),
)


def forward(
    q_BQHE: Tensor, k_BSKE: Tensor, v_BSKE: Tensor, keys: Tensor, config: Config | None = None
) -> tuple[Tensor, Tensor]:
    """Attention of each query over its keys; contiguous tensors.

    Args:
        keys: int32 [2, B, Q]: the first key that a query sees, and one past the last.

    Returns:
        Like `q_BQHE`; and fp32 [B, H, Q], the logarithm of the sum of exp(score), -inf where a query sees
        no key, whose result is zero.
    """
    rows, queries, heads, head_dim = q_BQHE.shape
    mixed, log_sums = torch.empty_like(q_BQHE), q_BQHE.new_empty(rows, heads, queries, dtype=torch.float32)
    config = config or chosen(CONFIGS, SMALL_CONFIGS, q_BQHE)
    programs = rows * heads * triton.cdiv(queries, config.blocks[0])
    if programs:
        described = copies_tiles(q_BQHE, k_BSKE, v_BSKE)
        attention_forward[(programs,)](
            tiles(q_BQHE, config.blocks[0], described),
            tiles(k_BSKE, config.blocks[1], described),
            tiles(v_BSKE, config.blocks[1], described),
            *keys.unbind(),
            mixed,
            log_sums,
            queries,
            k_BSKE.shape[1],
            score_scale(head_dim),
            H=heads,
            K=k_BSKE.shape[2],
            E=head_dim,
            BLOCK_Q=config.blocks[0],
            BLOCK_S=config.blocks[1],
            BLOCK_E=head_block(head_dim),
            DESCRIBED=described,
            num_warps=config.warps,
            num_stages=config.stages,
        )
    return mixed, log_sums


def chosen(large: Table, small: Table, q_BQHE: Tensor) -> Config:
    """The config of a table for these queries and their device."""
    key = q_BQHE.element_size(), head_block(q_BQHE.shape[3])
    return large[key] if has_room(q_BQHE) else small.get(key, large[key])


def score_scale(head_dim: int) -> float:
    """Of products of queries and keys, so that the softmax is of powers of two."""
    return math.log2(math.e) / math.sqrt(head_dim)


def tiles(x_BSHE: Tensor, rows: int, described: bool) -> Tensor | TensorDescriptor:
    """A tensor as `load_rows` takes it: itself, or for the copy engine as a matrix [B * S, H * E]."""
    if not described:
        return x_BSHE
    head_dim = x_BSHE.shape[3]
    return TensorDescriptor.from_tensor(x_BSHE.flatten(2).flatten(0, 1), [rows, head_dim])


@triton.jit
def load_rows(source, start, head, first, end, HEADS: tl.constexpr, E: tl.constexpr, ROWS: tl.constexpr,
              BLOCK_E: tl.constexpr, CHECKED: tl.constexpr, DESCRIBED: tl.constexpr):  # fmt: skip
    """[ROWS, BLOCK_E] of a head, from row start + first on.

    Zero beyond E, and where CHECKED from row start + end on; DESCRIBED, those rows are what lies there.
    """
    if DESCRIBED:
        return source.load([start + first, head * E])
    else:
        row = tl.arange(0, ROWS)
        column = tl.arange(0, BLOCK_E)
        # One 64-bit product a tile; offsets inside it are the same for every tile.
        begin = source + tl.cast(start + first, tl.int64) * (HEADS * E) + head * E
        tile = begin + row[:, None] * (HEADS * E) + column[None, :]
        if CHECKED:
            return tl.load(tile, (first + row < end)[:, None] & (column < E)[None, :], other=0.0)
        if E == BLOCK_E:
            return tl.load(tile)
        return tl.load(tile, (column < E)[None, :], other=0.0)


@triton.jit
def store_rows(ptr, tile, start, head, first, end, HEADS: tl.constexpr, E: tl.constexpr, ROWS: tl.constexpr,
               BLOCK_E: tl.constexpr):  # fmt: skip
    """Writes what `load_rows` would load, checked."""
    row = first + tl.arange(0, ROWS)
    column = tl.arange(0, BLOCK_E)
    place = ptr + (start + row).to(tl.int64)[:, None] * (HEADS * E) + head * E + column[None, :]
    tl.store(place, tile.to(ptr.dtype.element_ty), (row < end)[:, None] & (column < E)[None, :])


@triton.jit
def tiles_seen_whole(begin, end, BLOCK: tl.constexpr):
    """The run that a block's runs [begin, end) span, and how many tiles of BLOCK fit where all overlap.

    Segments lie one behind the other, so runs that begin at different places share nothing.
    """
    first, last = tl.min(begin), tl.max(end)
    shared = tl.maximum(tl.min(end) - first, 0) // BLOCK
    return first, last, tl.where(tl.max(begin) == first, shared, 0)


@triton.jit
def attention_forward(
    q_source,
    k_source,
    v_source,
    key_begin_ptr,
    key_end_ptr,
    mixed_ptr,
    log_sums_ptr,
    queries,
    size,
    scale,
    H: tl.constexpr,
    K: tl.constexpr,
    E: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_E: tl.constexpr,
    DESCRIBED: tl.constexpr,
):
    # The last queries of a row see the most keys: they begin first.
    blocks = tl.cdiv(queries, BLOCK_Q)
    first_query = (blocks - 1 - tl.program_id(0) % blocks) * BLOCK_Q
    row_head = tl.program_id(0) // blocks
    row, head = row_head // H, row_head % H
    kv_head = head // (H // K)

    query = first_query + tl.arange(0, BLOCK_Q)
    # Those beyond the row are as its last, which changes no run.
    bound = row.to(tl.int64) * queries + tl.minimum(query, queries - 1)
    begin, end = tl.load(key_begin_ptr + bound), tl.load(key_end_ptr + bound)
    first_key, last_key, whole = tiles_seen_whole(begin, end, BLOCK_S)
    border = first_key + whole * BLOCK_S
    q = load_rows(
        q_source, row * queries, head, first_query, queries, H, E, BLOCK_Q, BLOCK_E, True, DESCRIBED
    )

    mixed = tl.zeros([BLOCK_Q, BLOCK_E], tl.float32)
    top = tl.full([BLOCK_Q], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_Q], tl.float32)
    for key in tl.range(first_key, border, BLOCK_S):
        k = load_rows(k_source, row * size, kv_head, key, size, K, E, BLOCK_S, BLOCK_E, False, DESCRIBED)
        scores = tl.dot(q, k.T, input_precision="ieee")
        v = load_rows(v_source, row * size, kv_head, key, size, K, E, BLOCK_S, BLOCK_E, False, DESCRIBED)
        mixed, top, total = _add_tile(mixed, top, total, scores, v, scale, False)
    for key in tl.range(border, last_key, BLOCK_S):
        k = load_rows(k_source, row * size, kv_head, key, size, K, E, BLOCK_S, BLOCK_E, True, DESCRIBED)
        scores = tl.dot(q, k.T, input_precision="ieee")
        place = (key + tl.arange(0, BLOCK_S))[None, :]
        scores = tl.where((place >= begin[:, None]) & (place < end[:, None]), scores, float("-inf"))
        v = load_rows(v_source, row * size, kv_head, key, size, K, E, BLOCK_S, BLOCK_E, True, DESCRIBED)
        mixed, top, total = _add_tile(mixed, top, total, scores, v, scale, True)

    seen = total > 0
    mixed /= tl.where(seen, total, 1.0)[:, None]
    store_rows(mixed_ptr, mixed, row * queries, head, first_query, queries, H, E, BLOCK_Q, BLOCK_E)
    log_sum = tl.where(seen, (top + tl.log2(total)) * 0.6931471805599453, float("-inf"))
    tl.store(log_sums_ptr + row_head.to(tl.int64) * queries + query, log_sum, query < queries)


@triton.jit
def _add_tile(mixed, top, total, scores, v, scale, MASKED: tl.constexpr):
    """The sums with one more tile of keys, relative to the largest score so far, in powers of two."""
    new_top = tl.maximum(top, tl.max(scores, 1) * scale)
    base = new_top
    if MASKED:
        # A query that has seen no key yet has no largest score.
        base = tl.where(new_top == float("-inf"), 0.0, new_top)
    weights = tl.exp2(scores * scale - base[:, None])
    kept = tl.exp2(top - base)
    total = total * kept + tl.sum(weights, 1)
    mixed = tl.dot(weights.to(v.dtype), v, mixed * kept[:, None], input_precision="ieee")
    return mixed, new_top, total
