"""Keys and values in pages (vLLM, arXiv 2309.06180): a slot holds those of the tokens it may come to have.

For a GPU: a decode step reads the tokens that are there, not the capacity.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from megasbp.kernels.attention import SegmentBounds, attention_within
from megasbp.kernels.paged_attention import paged_attention, write_pages
from megasbp.model.cache import check_range
from megasbp.model.config import ModelConfig
from megasbp.model.host_copies import to_device
from megasbp.model.page_pool import PagePool

PAGE_TOKENS = 64


class PagedCache:
    """Pages of 64 tokens, handed to slots by `reserve` and taken back by `release`; slots may share pages.

    Args:
        config: of the model.
        slots: documents held together.
        capacity: C, positions of each at most, a multiple of the page's tokens.
        dtype: the model's compute type.
        tokens: of all slots together; None for slots * capacity.
        single_queries: attends the tokens of a prompt as those of decoding, one by one: slower, and a token's
            bits do not depend on those that are read with it.

    Raises:
        ValueError: slots, capacity or tokens cannot be.
    """

    def __init__(
        self,
        config: ModelConfig,
        slots: int,
        capacity: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        tokens: int | None = None,
        single_queries: bool = False,
    ) -> None:
        if slots < 1 or capacity < 1 or capacity % PAGE_TOKENS:
            raise ValueError(
                f"slots is {slots} and capacity is {capacity}; allowed: 1 or more, multiples of {PAGE_TOKENS}"
            )
        self.slots, self.capacity, self.page_tokens = slots, capacity, PAGE_TOKENS
        self._single_queries = single_queries
        pages = -(-(slots * capacity if tokens is None else tokens) // PAGE_TOKENS)
        if pages * PAGE_TOKENS < capacity:
            raise ValueError(f"tokens is {tokens}; allowed: {capacity} or more, those of one slot")
        shape = (config.layers, pages, PAGE_TOKENS, config.kv_heads, config.head_dim)
        self._keys = torch.zeros(shape, dtype=dtype, device=device)
        self._values = torch.zeros(shape, dtype=dtype, device=device)
        # The host hands out; the device's table follows it, a row at a time.
        self._pool = PagePool(pages)
        self._pages: list[list[int]] = [[] for _ in range(slots)]
        self._table = torch.zeros(slots, capacity // PAGE_TOKENS, dtype=torch.int32, device=device)

    @property
    def nbytes(self) -> int:
        """Memory of keys and values in bytes."""
        return self._keys.nbytes + self._values.nbytes

    def reserve(self, slot: int, tokens: int, shared: Sequence[int] = ()) -> bool:
        """Gives an empty slot pages for so many tokens; False, and nothing changes, if they are too few.

        Args:
            shared: pages in use that are the slot's first ones too; it must not write in them while another
                one reads there.
        """
        needed = -(-tokens // PAGE_TOKENS)
        own = self._pool.take(needed - len(shared))
        if own is None:
            return False
        self._pool.share(shared)
        self._pages[slot] = [*shared, *own]
        numbers = np.asarray(self._pages[slot], np.int32)
        self._table[slot, :needed] = to_device(numbers, self._table.device)
        return True

    def release(self, slot: int) -> None:
        """Takes a slot's pages back. Its row of the table stays, and is read as what is masked."""
        self._pool.give_back(self._pages[slot])
        self._pages[slot] = []

    def pages(self, slot: int, tokens: int) -> list[int]:
        """Pages that hold the first tokens of a slot."""
        return self._pages[slot][: -(-tokens // PAGE_TOKENS)]

    def hold(self, pages: Sequence[int]) -> None:
        """Keeps pages when their slots are released, until `drop`."""
        self._pool.share(pages)

    def drop(self, pages: Sequence[int]) -> None:
        """Ends a `hold`."""
        self._pool.give_back(pages)

    def users(self, page: int) -> int:
        """Slots and holds that have a page."""
        return self._pool.users(page)

    def copy_page(self, page: int, slot: int, place: int) -> None:
        """Copies a page, of all layers, to a slot's page at a place among its own, if that is another one."""
        target = self._pages[slot][place]
        if target != page:
            for memory in (self._keys, self._values):
                memory[:, target] = memory[:, page]

    def lanes(self, slots: torch.Tensor, positions: torch.Tensor, valid: torch.Tensor) -> "PagedLanes":
        """See `cache.Cache`; of valid places the slots hold the pages."""
        if positions.device.type == "cpu":
            check_range("position", positions, self.capacity)
            check_range("slot", slots, self.slots)
        table = self._table.index_select(0, slots)
        page = table.gather(1, positions // PAGE_TOKENS).long()
        places = torch.where(valid, page * PAGE_TOKENS + positions % PAGE_TOKENS, -1)
        ends = torch.where(valid, positions + 1, 0).to(torch.int32)
        return PagedLanes(table, places.flatten(), ends)

    def attend(
        self,
        layer: int,
        lanes: "PagedLanes",
        q_NTHE: torch.Tensor,
        k_NTKE: torch.Tensor,
        v_NTKE: torch.Tensor,
    ) -> torch.Tensor:
        """See `cache.Cache`. Single queries are attended in the pages; a chunk's are, in a copy of them."""
        keys, values = self._keys[layer], self._values[layer]
        write_pages(keys, values, k_NTKE.flatten(0, 1), v_NTKE.flatten(0, 1), lanes.places)
        tokens = q_NTHE.shape[1]
        if tokens == 1 or self._single_queries:
            table = lanes.table.repeat_interleave(tokens, 0)
            mixed = paged_attention(q_NTHE.flatten(0, 1), keys, values, table, lanes.ends.flatten())
            return mixed.unflatten(0, (-1, tokens))
        # Of places that nobody reads there may be those of others.
        whole_keys, whole_values = (pages[lanes.table.long()].flatten(1, 2) for pages in (keys, values))
        return attention_within(q_NTHE, whole_keys, whole_values, lanes.runs(self.capacity))


@dataclass(frozen=True)
class PagedLanes:
    """Which part of a paged cache one call works on.

    Attributes:
        table: int32 [N, C / A], pages of each lane.
        places: int64 [N * T], where each new key goes, -1 for nowhere.
        ends: int32 [N, T], one past the last position that each query sees; 0 for none.
    """

    table: torch.Tensor
    places: torch.Tensor
    ends: torch.Tensor

    def runs(self, capacity: int) -> SegmentBounds:
        """Which keys each query sees, for passes without gradients. What is not valid sees the first."""
        keys = torch.stack((torch.zeros_like(self.ends), self.ends.clamp(min=1)))
        return SegmentBounds(keys, keys.new_zeros(2, len(self.ends), capacity))
