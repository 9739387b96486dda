"""The best of the pairs that products in low precision propose, by exact sums.

The bytes do not depend on the bits of the products, which change with the processor, tiles and threads.
"""

import numpy as np

from megasbp.pairing.products import columns
from megasbp.pairing.similarity import best_of_each, similarities
from megasbp.pairing.vectors import Vectors

# owner int64, row int64, similarity, each [c]
Candidates = tuple[np.ndarray, np.ndarray, np.ndarray]

_QUERIES_AT_ONCE = 2048
_ROWS_AT_ONCE = 4096


def best_among(
    queries: np.ndarray | Vectors, corpus: np.ndarray | Vectors, k: int, *, own_row: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The k corpus rows of largest inner product with each query, largest first, ties by lower row.

    Exact, and the same at any number of threads. Memory holds the result and a block of each side.

    Args:
        queries: float32 or float16 [n, d], unit rows.
        corpus: float32 or float16 [m, d], unit rows.
        k: neighbours per query.
        own_row: int64 [n], the corpus row that is the query itself and no neighbour; -1 for none.

    Returns:
        similarity float32 [n, k], in multiples of 2**-20, and row int64 [n, k]; -inf and -1 where the corpus
        has fewer than k other rows.
    """
    similarity = np.full((len(queries), k), -np.inf, dtype=np.float32)
    row = np.full((len(queries), k), -1, dtype=np.int64)
    for first in range(0, len(corpus), _ROWS_AT_ONCE):
        part = corpus[first : first + _ROWS_AT_ONCE]
        rows = columns(part)
        for start in range(0, len(queries), _QUERIES_AT_ONCE):
            block = slice(start, min(start + _QUERIES_AT_ONCE, len(queries)))
            asking, own = queries[block], None if own_row is None else own_row[block] - first
            query, place = rows.close_pairs(asking, similarity[block, -1], best=k, own_row=own)
            found = query, place + first, similarities(asking, part, query, place)
            before = _flat(similarity[block], row[block])
            similarity[block], row[block] = best_of_each(
                *joined([before, found]), range(block.stop - block.start), k
            )
    return similarity, row


class Partition:
    """A partition's rows, ready to be joined with one batch of queries after the other.

    Args:
        vectors: float16 [m, d], rows of length 1.
        limit: float32 [m]: pairs of at least this similarity count for the row as a query of its own; None
            where the rows ask for nothing.
    """

    def __init__(self, vectors: np.ndarray, limit: np.ndarray | None) -> None:
        self._vectors, self._limit = vectors, limit
        self._columns = columns(vectors)

    def pairs(self, queries: np.ndarray, limit: np.ndarray) -> Candidates:
        """Pairs that may be similar enough for the query or for the row: all that are, and a few more.

        Args:
            queries: float16 [n, d], rows of length 1; a few thousand.
            limit: float32 [n]; pairs of at least this similarity count.

        Returns:
            query int64 [c], row int64 [c], similarity float64 [c] in multiples of 2**-20.
        """
        query, row = self._columns.close_pairs(queries, limit, row_limit=self._limit)
        return query, row, similarities(queries, self._vectors, query, row)


def best_per_owner(owner: np.ndarray, found: np.ndarray, similarity: np.ndarray, k: int) -> Candidates:
    """The best k different rows found for each owner, ordered by owner, falling similarity, lower row.

    Args:
        owner, found: int64 [c].
        similarity: [c]; equal for equal (owner, found).
    """
    owners, place = np.unique(owner, return_inverse=True)
    place, found, similarity = _flat(*best_of_each(place, found, similarity, range(len(owners)), k))
    return owners[place], found, similarity


def joined(found: list[Candidates]) -> Candidates:
    """The candidates of a list that is not empty, one after the other."""
    owner, row, similarity = (np.concatenate(column) for column in zip(*found, strict=True))
    return owner, row, similarity


def _flat(similarity: np.ndarray, row: np.ndarray) -> Candidates:
    """The rows that were found, of tables [n, k] in which -1 is none."""
    real = row >= 0
    return np.nonzero(real)[0], row[real], similarity[real]
