"""Attention of new tokens to a cache of fixed capacity.

The whole capacity is always read: the shape of the computation, and with it the last bits of a row, do not
depend on how full any row is.
"""

import torch
from torch.nn import functional


def visible_positions(
    positions: torch.Tensor, capacity: int, group: int, head_dim: int, dtype: torch.dtype
) -> torch.Tensor:
    """What `decode_attention` needs of the positions; made once, used by every layer.

    Args:
        positions: int64 [N, T], of the new tokens.
        capacity: C, positions a row of the cache holds.
        group: query heads per key-value head, H / K.
        head_dim: E.
        dtype: of the queries and the cache.

    Returns:
        `dtype` [N, 1, Q, C]: zero at a token's own position and before it, -inf after it. Q is group * T, and
        up to three rows more, see `_query_rows`.
    """
    hidden = torch.arange(capacity, device=positions.device) > positions[..., None]
    tokens = positions.shape[1]
    bias = torch.zeros(
        len(positions),
        1,
        _query_rows(group * tokens, capacity, head_dim),
        capacity,
        dtype=dtype,
        device=hidden.device,
    )
    bias[:, 0, : group * tokens].unflatten(1, (group, tokens)).masked_fill_(hidden[:, None], float("-inf"))
    return bias


def decode_attention(
    q_NTHE: torch.Tensor, keys_NKCE: torch.Tensor, values_NKCE: torch.Tensor, visible: torch.Tensor
) -> torch.Tensor:
    """softmax(q k^T / sqrt(E)) v over the visible positions of a row's cache.

    Args:
        q_NTHE: queries of the new tokens. Query head h uses key-value head h // (H / K).
        keys_NKCE, values_NKCE: the rows' caches, in the type of `q_NTHE`, finite everywhere.
        visible: of `visible_positions`.

    Returns:
        [N, T, H, E] in the type of `q_NTHE`. A row's bits do not depend on the other rows nor on its own
        place among them.
    """
    rows, tokens, heads, head_dim = q_NTHE.shape
    kv_heads = keys_NKCE.shape[1]
    group = heads // kv_heads
    # The query heads of one key-value head stand as so many queries of it: the cache is read once for all.
    grouped = q_NTHE.view(rows, tokens, kv_heads, group, head_dim).permute(0, 2, 3, 1, 4).flatten(2, 3)
    used, padded = group * tokens, visible.shape[2]
    if padded > used:
        grouped = functional.pad(grouped, (0, 0, 0, padded - used))
    mixed = functional.scaled_dot_product_attention(grouped, keys_NKCE, values_NKCE, attn_mask=visible)
    return mixed[:, :, :used].unflatten(2, (group, tokens)).permute(0, 3, 1, 2, 4).reshape(q_NTHE.shape)


def _query_rows(used: int, capacity: int, head_dim: int) -> int:
    """Query rows that keep the scratch memory of torch's fused CPU attention aligned to 16 bytes.

    Each thread has rows * (keys of a block + 2 + E) fp32 numbers of it, blocks of up to 512 keys. Off that
    alignment the matrix products of the second thread round differently from those of the first.
    """
    numbers = min(capacity, 512) + 2 + head_dim
    return next(rows for rows in range(used, used + 4) if rows * numbers % 4 == 0)
