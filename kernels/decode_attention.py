"""Attention of new tokens to a cache of fixed capacity.

The whole capacity is always read: the shape of the computation, and with it the last bits of a row, do not
depend on how full any row is.
"""

import torch
from torch.nn import functional


def visible_positions(positions: torch.Tensor, capacity: int, group: int, dtype: torch.dtype) -> torch.Tensor:
    """What `decode_attention` needs of the positions; made once, used by every layer.

    Args:
        positions: int64 [N, T], of the new tokens.
        capacity: C, positions a row of the cache holds.
        group: query heads per key-value head, H / K.
        dtype: of the queries and the cache.

    Returns:
        `dtype` [N, 1, group * T, C]: zero at a token's own position and before it, -inf after it.
    """
    visible = torch.arange(capacity, device=positions.device) <= positions[..., None]
    bias_NTC = torch.zeros(visible.shape, dtype=dtype, device=positions.device)
    return bias_NTC.masked_fill_(~visible, float("-inf")).repeat(1, group, 1)[:, None]


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
    grouped = q_NTHE.view(rows, tokens, kv_heads, group, head_dim).permute(0, 2, 3, 1, 4)
    mixed = functional.scaled_dot_product_attention(
        grouped.reshape(rows, kv_heads, group * tokens, head_dim), keys_NKCE, values_NKCE, attn_mask=visible
    )
    return mixed.view(rows, kv_heads, group, tokens, head_dim).permute(0, 3, 1, 2, 4).reshape(q_NTHE.shape)
