"""Similarities that are the same on every machine and at any number of threads."""

import numpy as np
import torch

from megasbp import _C
from megasbp.errors import InputError
from megasbp.pairing.vectors import Vectors

# Similarities are compared on this grid, so that equal vectors tie whatever the order of summation was.
GRID = 2.0**20
# A row shorter or longer than 1 by more than this is no unit row.
_LENGTH_TOLERANCE = 1e-3
_ROWS_AT_ONCE = 1 << 16
_ROWS_NAMED = 5


def similarities(
    queries: np.ndarray | Vectors,
    corpus: np.ndarray | Vectors,
    query_rows: np.ndarray,
    corpus_rows: np.ndarray,
) -> np.ndarray:
    """float64 [c]: queries[query_rows[i]] . corpus[corpus_rows[i]], rounded to multiples of 2**-20.

    Args:
        queries, corpus: float32 or float16 [n, d] and [m, d]; arrays are C-contiguous. Nothing is copied.
        query_rows, corpus_rows: int64 [c].
    """
    threads = torch.get_num_threads()
    if isinstance(queries, np.ndarray) and isinstance(corpus, np.ndarray):
        return np.asarray(_C.similarities(queries, corpus, query_rows, corpus_rows, threads))
    result = np.empty(len(query_rows))
    query_file, corpus_file = _file_of(queries, query_rows), _file_of(corpus, corpus_rows)
    # The pairs of one file of each side together, so that each is opened once.
    order = np.lexsort((corpus_file, query_file))
    steps = np.diff(query_file[order]).astype(bool) | np.diff(corpus_file[order]).astype(bool)
    for pairs in np.split(order, np.flatnonzero(steps) + 1):
        if len(pairs):
            some_queries, query_start = _open(queries, query_file[pairs[0]])
            some_corpus, corpus_start = _open(corpus, corpus_file[pairs[0]])
            places = query_rows[pairs] - query_start, corpus_rows[pairs] - corpus_start
            result[pairs] = _C.similarities(some_queries, some_corpus, *places, threads)
    return result


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


def check_unit_rows(vectors: Vectors) -> None:
    """Refuses rows that have no direction or a length other than 1. Reads the files block by block.

    Raises:
        InputError: a row is not finite, zero or not of length 1 (within 0.001): the message names the file,
            says how many of its rows there are and names the first.
    """
    for file, path in enumerate(vectors.paths):
        rows = vectors.open(file)
        for fault, found in _faults(rows).items():
            if found:
                first = ", ".join(str(row) for row in found[:_ROWS_NAMED])
                raise InputError(
                    f"{path}: {len(found)} of {len(rows)} rows {'is' if len(found) == 1 else 'are'} {fault} "
                    f"(first: {first}); look at these texts, remove them or embed them again"
                )


def _faults(vectors: np.ndarray) -> dict[str, list[int]]:
    """What is wrong with rows -> which."""
    faults: dict[str, list[int]] = {"not finite": [], "zero": [], "not of length 1": []}
    for start in range(0, len(vectors), _ROWS_AT_ONCE):
        block = vectors[start : start + _ROWS_AT_ONCE]
        length = np.sqrt(np.einsum("nd,nd->n", block, block))
        finite = np.isfinite(length)
        zero = length == 0
        other = finite & ~zero & (np.abs(length - 1) > _LENGTH_TOLERANCE)
        for fault, rows in zip(faults, (~finite, zero, other), strict=True):
            faults[fault] += (start + np.flatnonzero(rows)).tolist()
    return faults


def _file_of(vectors: np.ndarray | Vectors, rows: np.ndarray) -> np.ndarray:
    return vectors.file_of(rows) if isinstance(vectors, Vectors) else np.zeros(len(rows), np.int64)


def _open(vectors: np.ndarray | Vectors, file: int) -> tuple[np.ndarray, int]:
    """The rows of a file and the number of the first one."""
    if isinstance(vectors, Vectors):
        return vectors.open(file), int(vectors.bounds[file])
    return vectors, 0
