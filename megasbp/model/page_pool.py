"""Pages and how many use each."""

import heapq
from collections.abc import Iterable


class PagePool:
    """Hands out page numbers, the lowest first; a page is free again when the last who uses it gives it back.

    Args:
        pages: how many there are.
    """

    def __init__(self, pages: int) -> None:
        self._free = list(range(pages))
        self._users = [0] * pages

    def take(self, count: int) -> list[int] | None:
        """So many free pages, or None if they are too few."""
        if count > len(self._free):
            return None
        pages = [heapq.heappop(self._free) for _ in range(count)]
        self.share(pages)
        return pages

    def share(self, pages: Iterable[int]) -> None:
        """One more uses these pages."""
        for page in pages:
            self._users[page] += 1

    def give_back(self, pages: Iterable[int]) -> None:
        """One less uses these pages."""
        for page in pages:
            self._users[page] -= 1
            if not self._users[page]:
                heapq.heappush(self._free, page)

    def users(self, page: int) -> int:
        """How many use a page."""
        return self._users[page]
