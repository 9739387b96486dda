"""Gradients of `attention.forward`, without atomics: each number is summed by one program, in one order.

Scores are computed again, twice: one kernel walks the keys of a block of queries, the other the queries of a
block of keys.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .attention import Table, chosen, load_rows, score_scale, store_rows, tiles, tiles_seen_whole
from .launch import Config, copies_tiles, head_block

# (Queries, keys) of a tile.
QUERY_CONFIGS: Table = {
    (2, 16): Config((128, 64), warps=4, stages=3),
    (2, 32): Config((128, 64), warps=4, stages=3),
    (2, 64): Config((128, 64), warps=8, stages=3),
    (2, 128): Config((128, 64), warps=8, stages=3),
    (4, 16): Config((32, 32), warps=4, stages=1),
    (4, 32): Config((32, 32), warps=4, stages=1),
    (4, 64): Config((32, 32), warps=4, stages=1),
    (4, 128): Config((16, 16), warps=4, stages=1),
}
KEY_CONFIGS: Table = {
    (2, 16): Config((64, 128), warps=4, stages=3),
    (2, 32): Config((64, 128), warps=4, stages=3),
    (2, 64): Config((64, 128), warps=8, stages=3),
    (2, 128): Config((32, 64), warps=4, stages=2),
    (4, 16): Config((32, 32), warps=4, stages=1),
    (4, 32): Config((32, 32), warps=4, stages=1),
    (4, 64): Config((16, 32), warps=4, stages=1),
    (4, 128): Config((16, 16), warps=4, stages=1),
}
# Instead of these, where there is less shared memory.
SMALL_QUERY_CONFIGS: Table = {
    (2, 64): Config((64, 64), warps=4, stages=2),
    (2, 128): Config((64, 32), warps=4, stages=2),
}
SMALL_KEY_CONFIGS: Table = {(2, 64): Config((32, 64), warps=4, stages=2)}
# Others of 16-bit types that a tuner may try.
QUERY_CANDIDATES = (
    *(Config((64, keys), 4, stages) for keys in (32, 64) for stages in (2, 3)),
    *(Config((128, 64), 8, stages) for stages in (1, 2, 3)),
    Config((128, 128), warps=8, stages=2),
)
KEY_CANDIDATES = (
    *(Config((16, 64), 4, stages) for stages in (2, 3)),
    *(Config((32, 64), 4, stages) for stages in (1, 2, 3)),
    *(Config((64, 64), 8, stages) for stages in (1, 2)),
    *(Config((32, 128), 8, stages) for stages in (1, 2, 3)),
)


def backward(
    grad_BQHE: Tensor,
    q_BQHE: Tensor,
    k_BSKE: Tensor,
    v_BSKE: Tensor,
    mixed_BQHE: Tensor,
    log_sums: Tensor,
    keys: Tensor,
    queries: Tensor,
    query_config: Config | None = None,
    key_config: Config | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of queries, keys and values; contiguous tensors.

    Args:
        mixed_BQHE, log_sums, keys: of `attention.forward`.
        queries: int32 [2, B, S]: the first query that sees a key, and one past the last.
        query_config, key_config: of the kernels that walk the keys of queries, and the queries of keys.
    """
    rows, length, heads, head_dim = q_BQHE.shape
    size, kv_heads = k_BSKE.shape[1:3]
    block, scale = head_block(head_dim), score_scale(head_dim)
    grad_q, grad_k, grad_v = torch.empty_like(q_BQHE), torch.empty_like(k_BSKE), torch.empty_like(v_BSKE)
    products = torch.empty_like(log_sums)
    described = copies_tiles(grad_BQHE, q_BQHE, k_BSKE, v_BSKE, mixed_BQHE)
    config = query_config or chosen(QUERY_CONFIGS, SMALL_QUERY_CONFIGS, q_BQHE)
    programs = rows * heads * triton.cdiv(length, config.blocks[0])
    if programs:
        attention_backward_queries[(programs,)](
            *(tiles(x, config.blocks[0], described) for x in (grad_BQHE, q_BQHE)),
            *(tiles(x, config.blocks[1], described) for x in (k_BSKE, v_BSKE)),
            tiles(mixed_BQHE, config.blocks[0], described),
            log_sums,
            *keys.unbind(),
            grad_q,
            products,
            length,
            size,
            scale,
            H=heads,
            K=kv_heads,
            E=head_dim,
            BLOCK_Q=config.blocks[0],
            BLOCK_S=config.blocks[1],
            BLOCK_E=block,
            DESCRIBED=described,
            num_warps=config.warps,
            num_stages=config.stages,
        )
    config = key_config or chosen(KEY_CONFIGS, SMALL_KEY_CONFIGS, q_BQHE)
    programs = rows * kv_heads * triton.cdiv(size, config.blocks[1])
    if programs:
        attention_backward_keys[(programs,)](
            *(tiles(x, config.blocks[0], described) for x in (grad_BQHE, q_BQHE)),
            *(tiles(x, config.blocks[1], described) for x in (k_BSKE, v_BSKE)),
            log_sums,
            products,
            *queries.unbind(),
            grad_k,
            grad_v,
            length,
            size,
            scale,
            H=heads,
            K=kv_heads,
            E=head_dim,
            BLOCK_Q=config.blocks[0],
            BLOCK_S=config.blocks[1],
            BLOCK_E=block,
            DESCRIBED=described,
            num_warps=config.warps,
            num_stages=config.stages,
        )
    return grad_q, grad_k, grad_v


@triton.jit
def attention_backward_queries(
    grad_source,
    q_source,
    k_source,
    v_source,
    mixed_source,
    log_sums_ptr,
    key_begin_ptr,
    key_end_ptr,
    grad_q_ptr,
    products_ptr,
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
    """The gradient of queries; also writes each one's product of result and gradient, which keys need."""
    blocks = tl.cdiv(queries, BLOCK_Q)
    first_query = (blocks - 1 - tl.program_id(0) % blocks) * BLOCK_Q
    row_head = tl.program_id(0) // blocks
    row, head = row_head // H, row_head % H
    kv_head = head // (H // K)

    query = first_query + tl.arange(0, BLOCK_Q)
    bound = row.to(tl.int64) * queries + tl.minimum(query, queries - 1)
    begin, end = tl.load(key_begin_ptr + bound), tl.load(key_end_ptr + bound)
    first_key, last_key, whole = tiles_seen_whole(begin, end, BLOCK_S)
    border = first_key + whole * BLOCK_S

    number = row_head.to(tl.int64) * queries + query
    grad = load_rows(
        grad_source, row * queries, head, first_query, queries, H, E, BLOCK_Q, BLOCK_E, True, DESCRIBED
    )
    mixed = load_rows(
        mixed_source, row * queries, head, first_query, queries, H, E, BLOCK_Q, BLOCK_E, True, DESCRIBED
    )
    product = tl.sum(grad.to(tl.float32) * mixed.to(tl.float32), 1)
    tl.store(products_ptr + number, product, query < queries)
    log_sum = tl.load(log_sums_ptr + number, query < queries, other=0.0) * 1.4426950408889634
    q = load_rows(
        q_source, row * queries, head, first_query, queries, H, E, BLOCK_Q, BLOCK_E, True, DESCRIBED
    )

    grad_q = tl.zeros([BLOCK_Q, BLOCK_E], tl.float32)
    for key in tl.range(first_key, border, BLOCK_S):
        k = load_rows(k_source, row * size, kv_head, key, size, K, E, BLOCK_S, BLOCK_E, False, DESCRIBED)
        v = load_rows(v_source, row * size, kv_head, key, size, K, E, BLOCK_S, BLOCK_E, False, DESCRIBED)
        weights = tl.exp2(tl.dot(q, k.T, input_precision="ieee") * scale - log_sum[:, None])
        of_weights = tl.dot(grad, v.T, input_precision="ieee")
        of_scores = (weights * (of_weights - product[:, None])).to(k.dtype)
        grad_q = tl.dot(of_scores, k, grad_q, input_precision="ieee")
    for key in tl.range(border, last_key, BLOCK_S):
        k = load_rows(k_source, row * size, kv_head, key, size, K, E, BLOCK_S, BLOCK_E, True, DESCRIBED)
        v = load_rows(v_source, row * size, kv_head, key, size, K, E, BLOCK_S, BLOCK_E, True, DESCRIBED)
        weights = tl.exp2(tl.dot(q, k.T, input_precision="ieee") * scale - log_sum[:, None])
        place = (key + tl.arange(0, BLOCK_S))[None, :]
        weights = tl.where((place >= begin[:, None]) & (place < end[:, None]), weights, 0.0)
        of_weights = tl.dot(grad, v.T, input_precision="ieee")
        of_scores = (weights * (of_weights - product[:, None])).to(k.dtype)
        grad_q = tl.dot(of_scores, k, grad_q, input_precision="ieee")

    grad_q *= scale * 0.6931471805599453
    store_rows(grad_q_ptr, grad_q, row * queries, head, first_query, queries, H, E, BLOCK_Q, BLOCK_E)


@triton.jit
def attention_backward_keys(
    grad_source,
    q_source,
    k_source,
    v_source,
    log_sums_ptr,
    products_ptr,
    query_begin_ptr,
    query_end_ptr,
    grad_k_ptr,
    grad_v_ptr,
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
    """The gradients of keys and values, over all query heads that use them. Tiles are [keys, queries]."""
    blocks = tl.cdiv(size, BLOCK_S)
    # The first keys of a row are seen by the most queries: they begin first.
    first_key = tl.program_id(0) % blocks * BLOCK_S
    row_head = tl.program_id(0) // blocks
    row, kv_head = row_head // K, row_head % K

    bound = row.to(tl.int64) * size + tl.minimum(first_key + tl.arange(0, BLOCK_S), size - 1)
    begin, end = tl.load(query_begin_ptr + bound), tl.load(query_end_ptr + bound)
    first_query, last_query, _ = tiles_seen_whole(begin, end, BLOCK_Q)
    # Here it is the ends that are shared: tiles seen whole lie last.
    whole = tl.maximum(last_query - tl.max(begin), 0) // BLOCK_Q
    whole = tl.where(tl.min(end) == last_query, whole, 0)
    border = last_query - whole * BLOCK_Q
    k = load_rows(k_source, row * size, kv_head, first_key, size, K, E, BLOCK_S, BLOCK_E, True, DESCRIBED)
    v = load_rows(v_source, row * size, kv_head, first_key, size, K, E, BLOCK_S, BLOCK_E, True, DESCRIBED)

    grad_k = tl.zeros([BLOCK_S, BLOCK_E], tl.float32)
    grad_v = tl.zeros([BLOCK_S, BLOCK_E], tl.float32)
    for head in tl.range(kv_head * (H // K), (kv_head + 1) * (H // K)):
        numbers = (row * H + head).to(tl.int64) * queries
        for first in tl.range(first_query, border, BLOCK_Q):
            query = first + tl.arange(0, BLOCK_Q)
            inside = query < border
            q = load_rows(
                q_source, row * queries, head, first, border, H, E, BLOCK_Q, BLOCK_E, True, DESCRIBED
            )
            log_sum = tl.load(log_sums_ptr + numbers + query, inside, other=0.0) * 1.4426950408889634
            weights = tl.exp2(tl.dot(k, q.T, input_precision="ieee") * scale - log_sum[None, :])
            seen = (query[None, :] >= begin[:, None]) & (query[None, :] < end[:, None]) & inside[None, :]
            weights = tl.where(seen, weights, 0.0)
            grad = load_rows(
                grad_source, row * queries, head, first, border, H, E, BLOCK_Q, BLOCK_E, True, DESCRIBED
            )
            product = tl.load(products_ptr + numbers + query, inside, other=0.0)
            of_weights = tl.dot(v, grad.T, input_precision="ieee")
            grad_v = tl.dot(weights.to(grad.dtype), grad, grad_v, input_precision="ieee")
            of_scores = (weights * (of_weights - product[None, :])).to(q.dtype)
            grad_k = tl.dot(of_scores, q, grad_k, input_precision="ieee")
        for first in tl.range(border, last_query, BLOCK_Q):
            query = first + tl.arange(0, BLOCK_Q)
            q = load_rows(
                q_source, row * queries, head, first, border, H, E, BLOCK_Q, BLOCK_E, False, DESCRIBED
            )
            log_sum = tl.load(log_sums_ptr + numbers + query) * 1.4426950408889634
            weights = tl.exp2(tl.dot(k, q.T, input_precision="ieee") * scale - log_sum[None, :])
            grad = load_rows(
                grad_source, row * queries, head, first, border, H, E, BLOCK_Q, BLOCK_E, False, DESCRIBED
            )
            product = tl.load(products_ptr + numbers + query)
            of_weights = tl.dot(v, grad.T, input_precision="ieee")
            grad_v = tl.dot(weights.to(grad.dtype), grad, grad_v, input_precision="ieee")
            of_scores = (weights * (of_weights - product[None, :])).to(q.dtype)
            grad_k = tl.dot(of_scores, q, grad_k, input_precision="ieee")

    grad_k *= scale * 0.6931471805599453
    store_rows(grad_k_ptr, grad_k, row * size, kv_head, first_key, size, K, E, BLOCK_S, BLOCK_E)
    store_rows(grad_v_ptr, grad_v, row * size, kv_head, first_key, size, K, E, BLOCK_S, BLOCK_E)
