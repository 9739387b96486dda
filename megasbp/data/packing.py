"""Packing plans: which items share a row."""

from collections.abc import Iterator

import numpy as np

import megasbp._C as core

# Items are packed in groups of this many, so memory does not grow with the corpus. A larger group would fill
# its rows no better: with this many lengths to choose from, best fit leaves next to nothing empty.
GROUP_ITEMS = 1 << 16


def pack_group(lengths: np.ndarray, capacity: int, first_item: int) -> tuple[np.ndarray, np.ndarray]:
    """Packs one group best-fit-decreasing; no item is split.

    Args:
        lengths: int64 [n], each in 1..capacity.
        capacity: tokens of a row.
        first_item: number of the group's first item.

    Returns:
        Number of items of each row, int64 [rows], and the items row by row, int64 [n].
    """
    bounds, items = core.pack_best_fit(np.ascontiguousarray(lengths, dtype=np.int64), capacity)
    return np.diff(bounds), items + first_item


def groups(items: int) -> Iterator[slice]:
    """Consecutive slices of GROUP_ITEMS items that cover range(items)."""
    for first in range(0, items, GROUP_ITEMS):
        yield slice(first, min(first + GROUP_ITEMS, items))


def pack(lengths: np.ndarray, capacity: int) -> tuple[np.ndarray, np.ndarray]:
    """Packs items group by group.

    Args:
        lengths: int64 [n], each in 1..capacity.
        capacity: tokens of a row.

    Returns:
        bounds int64 [rows + 1] and items int64 [n]: row r holds items[bounds[r]:bounds[r + 1]], ascending.
    """
    packed = [pack_group(lengths[group], capacity, group.start) for group in groups(len(lengths))]
    counts = [count for count, _ in packed]
    items = [item for _, item in packed]
    empty = np.zeros(0, dtype=np.int64)
    bounds = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(np.concatenate([empty, *counts]))])
    return bounds, np.concatenate([empty, *items])
