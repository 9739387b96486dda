"""From a document's id to where it lies: its split, and its number there."""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

import megasbp._C as core
from megasbp.errors import InputError

_NAMED = 3


class DocumentIndex:
    """Finds documents by id in 16 bytes per document (32 while it is made), whatever the length of the ids.

    Ids are compared by a 64-bit key. An id that no document has is taken for one with a chance of
    documents / 2**64: 3e-11 at 600 million.

    Args:
        read_ids: () -> the ids of all documents in reading order, large_string arrays. Called a second time
            only to name ids that are not unique.

    Raises:
        InputError: two documents have one id (it is named), or two ids one key.
    """

    def __init__(self, read_ids: Callable[[], Iterable[pa.Array]]) -> None:
        parts = [id_keys(ids) for ids in read_ids()]
        keys = np.concatenate(parts) if parts else np.empty(0, np.uint64)
        self._order = np.argsort(keys, kind="stable")
        self._keys = keys[self._order]
        repeated = self._keys[1:][self._keys[1:] == self._keys[:-1]]
        if repeated.size:
            raise InputError(_describe_repeated(read_ids(), repeated))

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, ids: pa.Array) -> np.ndarray:
        """int64 [n], the place of each document in reading order; -1 for a null or an id nobody has."""
        keys = id_keys(ids)
        if not len(self):
            return np.full(len(keys), -1, dtype=np.int64)
        place = np.minimum(np.searchsorted(self._keys, keys), len(self) - 1)
        known = (self._keys[place] == keys) & ~np.asarray(pc.is_null(ids))
        return np.where(known, self._order[place], -1)


def id_keys(ids: pa.Array) -> np.ndarray:
    """uint64 [n], the keys of large_string ids; that of an empty string for a null."""
    if not len(ids):
        return np.empty(0, np.uint64)
    _, offsets, data = pc.fill_null(ids, "").buffers() if ids.null_count else ids.buffers()
    offset = 0 if ids.null_count else ids.offset
    bounds = np.frombuffer(offsets, dtype=np.int64, count=len(ids) + 1, offset=8 * offset)
    content = np.frombuffer(data, dtype=np.uint8) if data is not None and data.size else np.empty(0, np.uint8)
    return core.string_keys(content, bounds)


def split_numbers(codes: np.ndarray) -> np.ndarray:
    """int64 [n], the number of each document among those of its split, in reading order.

    Args:
        codes: integers [n], each document's split.
    """
    numbers = np.empty(len(codes), dtype=np.int64)
    for code in np.unique(codes):
        inside = codes == code
        numbers[inside] = np.arange(np.count_nonzero(inside))
    return numbers


def _describe_repeated(read_ids: Iterable[pa.Array], keys: np.ndarray) -> str:
    counts: dict[str, int] = {}
    for name in _with_keys(read_ids, np.unique(keys)[:_NAMED]):
        counts[name] = counts.get(name, 0) + 1
    twice = [f"{name!r} ({count} times)" for name, count in counts.items() if count > 1]
    if twice:
        return (
            f"the corpus has {len(keys)} documents whose id another one has, such as {', '.join(twice)}; "
            "pairs by id need unique ids: rename them or name another field in corpus.id_field"
        )
    return f"the ids {' and '.join(map(repr, counts))} have the same 64-bit key; rename one of them"


def _with_keys(read_ids: Iterable[pa.Array], keys: np.ndarray) -> Iterator[str]:
    for ids in read_ids:
        yield from ids.filter(pa.array(np.isin(id_keys(ids), keys))).to_pylist()
