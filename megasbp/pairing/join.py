"""The nearest rows of each query, block by block, and the best of what several searches have found."""

import numpy as np

from megasbp.pairing.picked_rows import PickedRows
from megasbp.pairing.products import Candidates, columns
from megasbp.pairing.similarity import best_of_each
from megasbp.pairing.vectors import Vectors

_QUERIES_AT_ONCE = 2048
_ROWS_AT_ONCE = 4096


def best_among(
    queries: np.ndarray | Vectors | PickedRows,
    corpus: np.ndarray | Vectors | PickedRows,
    k: int,
    *,
    own_row: np.ndarray | None = None,
    threads: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The k corpus rows of largest inner product with each query, largest first, ties by lower row.

    Exact, and the same at any number of threads. Memory holds the result and a block of each side.

    Args:
        queries: float32 or float16 [n, d], unit rows.
        corpus: float32 or float16 [m, d], unit rows.
        k: neighbours per query.
        own_row: int64 [n], the corpus row that is the query itself and no neighbour; -1 for none.
        threads: see `columns`.

    Returns:
        similarity float32 [n, k], in multiples of 2**-20, and row int64 [n, k]; -inf and -1 where the corpus
        has fewer than k other rows.
    """
    similarity = np.full((len(queries), k), -np.inf, dtype=np.float32)
    row = np.full((len(queries), k), -1, dtype=np.int64)
    own = np.full(len(queries), -1) if own_row is None else own_row
    for first in range(0, len(corpus), _ROWS_AT_ONCE):
        rows = columns(corpus[first : first + _ROWS_AT_ONCE], threads)
        for start in range(0, len(queries), _QUERIES_AT_ONCE):
            block = slice(start, min(start + _QUERIES_AT_ONCE, len(queries)))
            rows.improve(queries[block], own[block], first, similarity[block], row[block])
    return similarity, row


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
