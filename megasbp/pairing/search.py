"""Exact nearest neighbours by inner product, the same on every run."""

import faiss
import numpy as np

# Similarities are rounded to this grid before they are compared. The order of summation inside a matrix
# product depends on where a row falls in a tile, so equal vectors may get similarities that differ in the
# last bits; float32 sums of a few hundred products of unit vectors differ by about 1e-7.
_GRID = np.float32(2**20)


def nearest_neighbours(
    queries: np.ndarray, corpus: np.ndarray, k: int, exclude_same_row: bool
) -> tuple[np.ndarray, np.ndarray]:
    """The k corpus rows of largest inner product with each query, largest first, ties by lower index.

    Exact (faiss IndexFlatIP). Two similarities tie when they round to the same multiple of 2**-20.

    Args:
        queries: float32 [n, d], unit rows for cosine similarity.
        corpus: float32 [m, d].
        k: neighbours per query.
        exclude_same_row: corpus row i is no neighbour of query row i (queries and corpus are the same
            documents).

    Returns:
        similarity float32 [n, k], rounded to the grid, and index int64 [n, k]. Where fewer than k neighbours
        exist the similarity is -inf and the index -1.

    Raises:
        ValueError: the arrays are not float32 matrices of one width, hold a value that is not finite, or k <
            1.
    """
    for name, array in (("queries", queries), ("corpus", corpus)):
        if array.ndim != 2 or array.dtype != np.float32:
            raise ValueError(f"{name} is {array.dtype} {array.shape}, must be a float32 matrix")
        if not np.isfinite(array).all():
            raise ValueError(f"{name} holds a value that is not finite")
    if queries.shape[1] != corpus.shape[1]:
        raise ValueError(f"queries have {queries.shape[1]} dimensions, the corpus has {corpus.shape[1]}")
    if k < 1:
        raise ValueError(f"k is {k}, must be at least 1")

    similarity = np.full((len(queries), k), -np.inf, dtype=np.float32)
    index = np.full((len(queries), k), -1, dtype=np.int64)
    if not len(corpus):
        return similarity, index
    flat = faiss.IndexFlatIP(corpus.shape[1])
    flat.add(np.ascontiguousarray(corpus))

    pending = np.arange(len(queries))
    # One more than needed shows whether the last place was decided among equals that faiss left out.
    width = k + 1 + int(exclude_same_row)
    while pending.size:
        width = min(width, len(corpus))
        found_similarity, found = flat.search(np.ascontiguousarray(queries[pending]), width)
        found_similarity = (np.round(found_similarity * _GRID) / _GRID).astype(np.float32)
        if exclude_same_row:
            own = found == pending[:, None]
            found_similarity[own] = -np.inf
            found[own] = -1
        order = np.lexsort((found, -found_similarity), axis=-1)
        found_similarity = np.take_along_axis(found_similarity, order, axis=-1)
        found = np.take_along_axis(found, order, axis=-1)
        size = min(k, width)
        similarity[pending, :size] = found_similarity[:, :size]
        index[pending, :size] = found[:, :size]
        if width == len(corpus):
            break
        # The own row, if found, was sorted to the end; the smallest similarity found lies just before it.
        last = np.where(found[:, -1] < 0, found_similarity[:, -2], found_similarity[:, -1])
        pending = pending[last == found_similarity[:, k - 1]]
        width *= 2
    return similarity, index
