"""Attention of new tokens to a cache of fixed capacity.

A row's bits depend on that row alone. In C++, on a CPU, only the visible positions are read. In PyTorch the
whole capacity always is: the shape of the computation, and with it the last bits of a row, do not depend on
how full any row is.
"""

import torch
from torch.nn import functional

from .cpu import address, cpp, has_head_dim, takes


def visible_positions(
    positions: torch.Tensor, capacity: int, group: int, head_dim: int, dtype: torch.dtype
) -> torch.Tensor:
    """What `decode_attention` needs of the positions; made once, used by every layer.

    Args:
        positions: int64 [N, T], of the new tokens, each below the capacity.
        capacity: C, positions a row of the cache holds.
        group: query heads per key-value head, H / K.
        head_dim, dtype: of the queries and the cache.

    Returns:
        The positions themselves where C++ takes over. Else [N, 1, G * T, C], at least fp32 on the CPU and
        `dtype` elsewhere: zero at a token's own position and before it, -inf after it.

    Raises:
        ValueError: a position lies outside the capacity. They are looked at on the CPU only, where C++ would
            read beyond it; elsewhere that would wait for the device.
    """
    if positions.device.type == "cpu":
        _check_positions(positions, capacity)
    if takes(torch.empty(0, dtype=dtype, device=positions.device)) and has_head_dim(head_dim):
        return positions.contiguous()
    hidden = torch.arange(capacity, device=positions.device) > positions[..., None]
    math = _math_dtype(dtype, positions.device)
    bias = torch.zeros(hidden.shape, dtype=math, device=positions.device).masked_fill_(hidden, float("-inf"))
    return bias.repeat(1, group, 1)[:, None]


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

    Raises:
        ValueError: the tensors do not fit together, or `visible` is of other rows or another capacity.
    """
    _check_tensors(q_NTHE, keys_NKCE, values_NKCE)
    rows, tokens, heads, head_dim = q_NTHE.shape
    kv_heads, capacity = keys_NKCE.shape[1:3]
    if visible.dtype == torch.int64:
        return _in_cpp(q_NTHE, keys_NKCE, values_NKCE, visible)
    group = heads // kv_heads
    if visible.shape != (rows, 1, group * tokens, capacity):
        raise ValueError(
            f"visible positions are {tuple(visible.shape)}; allowed: {(rows, 1, group * tokens, capacity)}"
        )
    # The query heads of one key-value head stand as so many queries of it: the cache is read once for all.
    grouped = q_NTHE.view(rows, tokens, kv_heads, group, head_dim).permute(0, 2, 3, 1, 4).flatten(2, 3)
    if q_NTHE.device.type == "cpu":
        mixed = _attend(grouped, keys_NKCE, values_NKCE, visible).to(q_NTHE.dtype)
    else:
        mixed = functional.scaled_dot_product_attention(grouped, keys_NKCE, values_NKCE, attn_mask=visible)
    return mixed.unflatten(2, (group, tokens)).permute(0, 3, 1, 2, 4).reshape(q_NTHE.shape)


def _check_positions(positions: torch.Tensor, capacity: int) -> None:
    if positions.numel():
        lowest, highest = (int(position) for position in positions.aminmax())
        if not 0 <= lowest <= highest < capacity:
            raise ValueError(f"positions are {lowest} to {highest}; allowed: 0 to {capacity - 1}")


def _check_tensors(q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> None:
    fit = q.dim() == keys.dim() == 4 and values.shape == keys.shape
    if not fit or len(q) != len(keys) or q.shape[3] != keys.shape[3] or q.shape[2] % keys.shape[1]:
        raise ValueError(
            f"queries are {tuple(q.shape)}, keys {tuple(keys.shape)}, values {tuple(values.shape)}; allowed: "
            "[N, T, H, E], and twice [N, K, C, E], K dividing H"
        )


def _in_cpp(
    q_NTHE: torch.Tensor, keys_NKCE: torch.Tensor, values_NKCE: torch.Tensor, positions: torch.Tensor
) -> torch.Tensor:
    taken = takes(q_NTHE, keys_NKCE, values_NKCE) and has_head_dim(q_NTHE.shape[3])
    if not taken or positions.shape != q_NTHE.shape[:2]:
        raise ValueError(
            f"queries {tuple(q_NTHE.shape)} {q_NTHE.dtype}, caches {keys_NKCE.dtype} and "
            f"{values_NKCE.dtype}, positions {tuple(positions.shape)}; allowed: [N, T, H, E] of one type, "
            "and [N, T]"
        )
    # They were looked at for the capacity that was named then, which may be another cache's.
    _check_positions(positions, keys_NKCE.shape[2])
    q_NTHE = q_NTHE.contiguous()
    mixed = torch.empty_like(q_NTHE)
    rows, tokens, heads, head_dim = q_NTHE.shape
    cpp.decode_attention(
        q_NTHE.dtype == torch.bfloat16,
        rows,
        tokens,
        heads,
        keys_NKCE.shape[1],
        head_dim,
        keys_NKCE.shape[2],
        *(address(x) for x in (q_NTHE, positions, keys_NKCE, values_NKCE, mixed)),
    )
    return mixed


def _attend(q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
    """Each row and head on its own. torch's fused CPU attention takes 1.7 times as long for single queries,
    and the last bits of a row there depend on the alignment of its thread's scratch memory."""
    q, keys, values = (x.to(visible.dtype) for x in (q, keys, values))
    scores = torch.matmul(q * q.shape[-1] ** -0.5, keys.transpose(-1, -2)).add_(visible)
    return torch.matmul(torch.softmax(scores, -1), values)


def _math_dtype(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32) if device.type == "cpu" else dtype
