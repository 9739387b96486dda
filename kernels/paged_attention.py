"""Attention of one new token of each sequence to keys and values that lie in pages.

Pages are handed out as sequences grow (vLLM, arXiv 2309.06180), so memory is that of the tokens read, not of
the longest sequence there may be. The bits of a sequence depend on its own queries, keys, values and length
alone: the context is divided at fixed places, whoever else is there.
"""

import torch
from torch import Tensor

from .custom_op import contiguous_like, custom_op, mutating_op
from .route import route


def paged_attention(
    q_NHE: Tensor, key_pages_PAKE: Tensor, value_pages_PAKE: Tensor, page_table: Tensor, lengths: Tensor
) -> Tensor:
    """softmax(q k^T / sqrt(E)) v over the first `lengths` tokens of each sequence.

    Args:
        q_NHE: queries of one token of N sequences; query head h uses key-value head h // (H / K). In Triton
            on a GPU, else in PyTorch.
        key_pages_PAKE, value_pages_PAKE: P pages of A tokens, in the type of `q_NHE`. What no sequence
            reaches may be anything, nan too.
        page_table: int32 [N, M]: token t of a sequence lies at place t % A of page [n, t // A]. Entries
            behind its last token may be anything.
        lengths: int32 [N], of the sequences with the new token, up to M * A. 0 for an empty lane.

    Returns:
        [N, H, E] in the type of `q_NHE`; zeros for an empty lane.

    Raises:
        ValueError: the sizes or types do not agree, or, on the CPU only, where looking does not wait for the
            device, a length or a page in use is out of range.
    """
    _check_pages(key_pages_PAKE, value_pages_PAKE)
    pages, page, kv_heads, head_dim = key_pages_PAKE.shape
    if q_NHE.dtype != key_pages_PAKE.dtype or q_NHE.shape[2] != head_dim or q_NHE.shape[1] % kv_heads:
        raise ValueError(
            f"queries are {q_NHE.dtype} {tuple(q_NHE.shape)}, pages {key_pages_PAKE.dtype} "
            f"{tuple(key_pages_PAKE.shape)}; allowed: [N, H, E] and [P, A, K, E] of one type, K dividing H"
        )
    rows = len(q_NHE)
    if page_table.dtype != torch.int32 or page_table.dim() != 2 or len(page_table) != rows:
        raise ValueError(
            f"page_table is {page_table.dtype} {tuple(page_table.shape)}; allowed: int32 [{rows}, M]"
        )
    if lengths.dtype != torch.int32 or lengths.shape != (rows,):
        raise ValueError(f"lengths are {lengths.dtype} {tuple(lengths.shape)}; allowed: int32 [{rows}]")
    if rows and lengths.device.type == "cpu":
        capacity = page_table.shape[1] * page
        if not 0 <= lengths.min() <= lengths.max() <= capacity:
            raise ValueError(
                f"lengths are {lengths.min()} to {lengths.max()}; allowed: 0 to {capacity}, the pages' tokens"
            )
        used = page_table[torch.arange(page_table.shape[1]) * page < lengths[:, None]]
        if len(used) and not 0 <= used.min() <= used.max() < pages:
            raise ValueError(f"pages in use are {used.min()} to {used.max()}; allowed: 0 to {pages - 1}")
    return _paged_attention(q_NHE, key_pages_PAKE, value_pages_PAKE, page_table, lengths)


def write_pages(
    key_pages_PAKE: Tensor, value_pages_PAKE: Tensor, k_NKE: Tensor, v_NKE: Tensor, slots: Tensor
) -> None:
    """Puts keys and values of new tokens into their pages.

    Args:
        key_pages_PAKE, value_pages_PAKE: contiguous; written in place.
        k_NKE, v_NKE: of N tokens, in the pages' type.
        slots: int64 [N], page * A + place in the page, different ones; below 0 for a token that is written
            nowhere.

    Raises:
        ValueError: the sizes or types do not agree, pages are not contiguous, or, on the CPU only, a slot
            lies behind the last page.
    """
    _check_pages(key_pages_PAKE, value_pages_PAKE)
    pages, page, kv_heads, head_dim = key_pages_PAKE.shape
    wanted = (len(slots), kv_heads, head_dim)
    for name, x in (("keys", k_NKE), ("values", v_NKE)):
        if x.shape != wanted or x.dtype != key_pages_PAKE.dtype:
            raise ValueError(
                f"{name} are {x.dtype} {tuple(x.shape)}; allowed: {key_pages_PAKE.dtype} {wanted}"
            )
    if slots.dtype != torch.int64 or slots.dim() != 1:
        raise ValueError(f"slots are {slots.dtype} {tuple(slots.shape)}; allowed: int64 [N]")
    if len(slots) and slots.device.type == "cpu" and slots.max() >= pages * page:
        raise ValueError(f"slot {slots.max()} lies behind the pages; allowed: up to {pages * page - 1}")
    _write_pages(key_pages_PAKE, value_pages_PAKE, k_NKE, v_NKE, slots)


def _check_pages(keys: Tensor, values: Tensor) -> None:
    if keys.dim() != 4 or values.shape != keys.shape or values.dtype != keys.dtype:
        raise ValueError(
            f"key pages are {keys.dtype} {tuple(keys.shape)}, value pages {values.dtype} "
            f"{tuple(values.shape)}; allowed: [P, A, K, E], of one shape and type"
        )
    if not (keys.is_contiguous() and values.is_contiguous()):
        raise ValueError(
            f"pages have strides {keys.stride()} and {values.stride()}; make them contiguous once, for good"
        )


@custom_op(fake=lambda q_NHE, key_pages_PAKE, value_pages_PAKE, page_table, lengths: contiguous_like(q_NHE))
def _paged_attention(
    q_NHE: Tensor, key_pages_PAKE: Tensor, value_pages_PAKE: Tensor, page_table: Tensor, lengths: Tensor
) -> Tensor:
    if route(q_NHE, key_pages_PAKE) == "triton":
        from .gpu import paged_attention as gpu

        return gpu.attend(
            q_NHE.contiguous(),
            key_pages_PAKE,
            value_pages_PAKE,
            page_table.contiguous(),
            lengths.contiguous(),
        )
    return _attend(q_NHE, key_pages_PAKE, value_pages_PAKE, page_table, lengths)


@mutating_op("key_pages_PAKE", "value_pages_PAKE")
def _write_pages(
    key_pages_PAKE: Tensor, value_pages_PAKE: Tensor, k_NKE: Tensor, v_NKE: Tensor, slots: Tensor
) -> None:
    if route(key_pages_PAKE) == "triton":
        from .gpu import paged_attention as gpu

        gpu.write(
            key_pages_PAKE, value_pages_PAKE, k_NKE.contiguous(), v_NKE.contiguous(), slots.contiguous()
        )
        return
    written = (slots >= 0).nonzero()[:, 0]
    for pages, x in ((key_pages_PAKE, k_NKE), (value_pages_PAKE, v_NKE)):
        pages.flatten(0, 1).index_copy_(0, slots[written], x[written])


# A CPU's library chooses by the sizes how it adds up: every product has this many sequences.
_BLOCK_SEQUENCES = 8


def _attend(q: Tensor, key_pages: Tensor, value_pages: Tensor, page_table: Tensor, lengths: Tensor) -> Tensor:
    blocks = []
    for start in range(0, len(q), _BLOCK_SEQUENCES):
        parts = [x[start : start + _BLOCK_SEQUENCES] for x in (q, page_table, lengths)]
        rows = len(parts[0])
        # Filled up with empty lanes.
        block = [torch.cat((x, x.new_zeros(_BLOCK_SEQUENCES - rows, *x.shape[1:]))) for x in parts]
        blocks.append(_attend_block(block[0], key_pages, value_pages, *block[1:])[:rows])
    return torch.cat(blocks) if blocks else torch.empty_like(q)


def _attend_block(
    q: Tensor, key_pages: Tensor, value_pages: Tensor, page_table: Tensor, lengths: Tensor
) -> Tensor:
    (_, page, kv_heads, head_dim), math = key_pages.shape, torch.promote_types(q.dtype, torch.float32)
    token = torch.arange(page_table.shape[1] * page, device=q.device)
    visible = token < lengths[:, None]
    # Entries of the table behind the last token are read as page 0, whose numbers are then masked.
    table = torch.where(visible[:, ::page], page_table, 0)
    keys, values = (
        pages[table].flatten(1, 2).to(math).masked_fill_(~visible[..., None, None], 0.0)
        for pages in (key_pages, value_pages)
    )
    grouped = q.to(math).unflatten(1, (kv_heads, -1))
    scores = torch.einsum("nkge,ntke->nkgt", grouped, keys) * head_dim**-0.5
    scores.masked_fill_(~visible[:, None, None], -torch.inf)
    # An empty lane's softmax is that of nothing.
    weights = scores.softmax(-1).masked_fill_((lengths == 0)[:, None, None, None], 0.0)
    return torch.einsum("nkgt,ntke->nkge", weights, values).flatten(1, 2).to(q.dtype).contiguous()
