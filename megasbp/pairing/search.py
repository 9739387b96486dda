"""Exact nearest neighbours by inner product, the same on every run."""

import numpy as np

from megasbp.pairing.join import best_among
from megasbp.pairing.vectors import Vectors

_QUERIES_AT_ONCE = 1 << 15


def nearest_neighbours(
    queries: np.ndarray | Vectors, corpus: np.ndarray | Vectors, k: int, exclude_same_row: bool
) -> tuple[np.ndarray, np.ndarray]:
    """The k corpus rows of largest inner product with each query, largest first, ties by lower index.

    Exact, and the same at any number of threads: products in low precision propose, inner products in
    float64 decide, rounded to multiples of 2**-20. What ties there is ordered by index.

    Args:
        queries: float32 [n, d], unit rows.
        corpus: float32 [m, d], unit rows.
        k: neighbours per query.
        exclude_same_row: corpus row i is no neighbour of query row i: both are the same documents.

    Returns:
        similarity float32 [n, k], rounded to the grid, and index int64 [n, k]. Where fewer than k neighbours
        exist the similarity is -inf and the index -1.

    Raises:
        ValueError: the arrays are no float32 matrices of one width, or hold a value that is not finite; or
            k < 1.
    """
    for name, array in (("queries", queries), ("corpus", corpus)):
        if isinstance(array, np.ndarray) and (array.ndim != 2 or array.dtype != np.float32):
            raise ValueError(f"{name} is {array.dtype} {array.shape}, must be a float32 matrix")
        if isinstance(array, np.ndarray) and not np.isfinite(array).all():
            raise ValueError(f"{name} holds a value that is not finite")
    if queries.shape[1] != corpus.shape[1]:
        raise ValueError(f"queries have {queries.shape[1]} dimensions, the corpus has {corpus.shape[1]}")
    if k < 1:
        raise ValueError(f"k is {k}, must be at least 1")
    similarity = np.empty((len(queries), k), dtype=np.float32)
    index = np.empty((len(queries), k), dtype=np.int64)
    # The whole corpus is read for each of these blocks of queries.
    for start in range(0, len(queries), _QUERIES_AT_ONCE):
        block = slice(start, min(start + _QUERIES_AT_ONCE, len(queries)))
        own_row = np.arange(block.start, block.stop) if exclude_same_row else None
        similarity[block], index[block] = best_among(queries[block], corpus, k, own_row=own_row)
    return similarity, index
