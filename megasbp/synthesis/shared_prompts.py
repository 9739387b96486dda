"""Draws of one seed document read its prompt once: the others use the pages that it filled.

A request says that its prompt is that of the request before it (`Request.same_prompt`), and this alone
decides who shares, never who happens to be there: so the number of computed tokens is a function of the
requests too. Whole pages are shared; the last one, which each document goes on writing in, is copied. What
lies there is what the document's own reading would have put there, bit for bit: both are computed at one
shape.
"""

from dataclasses import dataclass, field

import numpy as np

from megasbp.model.paged_cache import PagedCache


@dataclass
class _Prompt:
    """A prompt in the cache.

    Attributes:
        tokens: int64 [P]; all but the last are read.
        pages: that it fills.
        whole: how many of them it fills to the end.
        was_read: whether they hold it all.
        waiting: slots that use it then.
    """

    tokens: np.ndarray
    pages: list[int]
    whole: int
    was_read: bool = False
    waiting: list[int] = field(default_factory=list)


class SharedPrompts:
    """Keeps the pages of the newest prompt until another one comes, and knows who waits for whose reading.

    Args:
        cache: of the engine.
    """

    def __init__(self, cache: PagedCache) -> None:
        self._cache = cache
        self._newest: _Prompt | None = None
        self._unread: dict[int, _Prompt] = {}

    def reset(self) -> None:
        """Forgets all prompts; the pages of slots are given back elsewhere."""
        self._let_go()
        self._unread.clear()

    def reserve_first(self, slot: int, prompt: np.ndarray, tokens: int) -> bool:
        """Pages for a request with a prompt of its own; False if they are too few.

        Args:
            prompt: int64 [P], P >= 2.
            tokens: that the slot may come to hold.
        """
        self._let_go()
        if not self._cache.reserve(slot, tokens):
            return False
        to_read = len(prompt) - 1
        pages = self._cache.pages(slot, to_read)
        self._newest = _Prompt(prompt, pages, to_read // self._cache.page_tokens)
        self._unread[slot] = self._newest
        self._cache.hold(pages)
        return True

    def reserve_next(self, slot: int, prompt: np.ndarray, tokens: int) -> bool:
        """Pages for another draw of the newest prompt; False if they are too few.

        Raises:
            ValueError: it is another prompt.
        """
        newest = self._newest
        if newest is None or not np.array_equal(prompt, newest.tokens):
            raise ValueError("a request says that its prompt is that of the one before, and it is another")
        kept = newest.pages[: newest.whole]
        if newest.was_read and self._cache.users(newest.pages[-1]) == 1:
            # Nobody writes in the last page any more: no copy is needed, so the pages of one slot are enough.
            kept = newest.pages
        if not self._cache.reserve(slot, tokens, kept):
            return False
        if newest.was_read:
            self._copy_last(newest, slot)
        else:
            newest.waiting.append(slot)
        return True

    def waits(self, slot: int) -> bool:
        """Whether a slot's prompt is being read by another one."""
        return any(slot in prompt.waiting for prompt in self._unread.values())

    def finish_reading(self, slot: int) -> list[int]:
        """A slot has read its prompt. Returns the slots that waited for it, which hold it now."""
        prompt = self._unread.pop(slot)
        prompt.was_read = True
        for follower in prompt.waiting:
            self._copy_last(prompt, follower)
        return prompt.waiting

    def _copy_last(self, prompt: _Prompt, slot: int) -> None:
        self._cache.copy_page(prompt.pages[-1], slot, len(prompt.pages) - 1)

    def _let_go(self) -> None:
        if self._newest is not None:
            self._cache.drop(self._newest.pages)
        self._newest = None
