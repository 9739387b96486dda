"""Similarities that are the same on every machine and at any number of threads."""

import numpy as np
import torch

from megasbp import _C
from megasbp.errors import InputError

# Similarities are compared on this grid, so that equal vectors tie whatever the order of summation was.
GRID = 2.0**20
# A row shorter or longer than 1 by more than this is no unit row.
_LENGTH_TOLERANCE = 1e-3
_ROWS_AT_ONCE = 1 << 16
_ROWS_NAMED = 5


def similarities(
    queries: np.ndarray, corpus: np.ndarray, query_rows: np.ndarray, corpus_rows: np.ndarray
) -> np.ndarray:
    """float64 [c]: queries[query_rows[i]] . corpus[corpus_rows[i]], rounded to multiples of 2**-20.

    Args:
        queries, corpus: float32 [n, d] and [m, d], C-contiguous; memory maps will do.
        query_rows, corpus_rows: int64 [c].
    """
    return np.asarray(_C.similarities(queries, corpus, query_rows, corpus_rows, torch.get_num_threads()))


def best_of_each(
    owner: np.ndarray, row: np.ndarray, similarity: np.ndarray, owners: range, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """The best k different rows of each owner, by falling similarity, then lower row.

    Args:
        owner, row: int64 [c], in any order; every owner lies in `owners`.
        similarity: [c]; equal for equal (owner, row).

    Returns:
        similarity float64 and row int64 [owners, k]; -inf and -1 where there are fewer.
    """
    best: tuple[np.ndarray, np.ndarray] = _C.best_of_each(
        owner,
        row,
        np.asarray(similarity, dtype=np.float64),
        owners.start,
        owners.stop,
        k,
        torch.get_num_threads(),
    )
    return best


def check_unit_rows(vectors: np.ndarray, name: str) -> None:
    """Refuses rows that have no direction or a length other than 1.

    Args:
        vectors: [n, d] of any float dtype; read in blocks.
        name: what the message calls them.

    Raises:
        InputError: a row is not finite, zero or not of length 1 (within 0.001): the message says how many
            there are and names the first.
    """
    faults: dict[str, list[int]] = {"not finite": [], "zero": [], "not of length 1": []}
    for start in range(0, len(vectors), _ROWS_AT_ONCE):
        block = np.asarray(vectors[start : start + _ROWS_AT_ONCE], dtype=np.float32)
        length = np.sqrt(np.einsum("nd,nd->n", block, block))
        finite = np.isfinite(length)
        zero = length == 0
        other = finite & ~zero & (np.abs(length - 1) > _LENGTH_TOLERANCE)
        for fault, rows in zip(faults, (~finite, zero, other), strict=True):
            faults[fault] += (start + np.flatnonzero(rows)).tolist()
    for fault, found in faults.items():
        if found:
            first = ", ".join(str(row) for row in found[:_ROWS_NAMED])
            raise InputError(
                f"{name}: {len(found)} of {len(vectors)} rows {'is' if len(found) == 1 else 'are'} {fault} "
                f"(first: {first}); look at these texts, remove them or embed them again"
            )
