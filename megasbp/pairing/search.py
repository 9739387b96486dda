"""Exact nearest neighbours by inner product, the same on every run."""

import faiss
import numpy as np

from megasbp.pairing.similarity import GRID, similarities

# By how much a float32 matrix product of unit vectors may be wrong; its bits change with tiles and threads.
# Over a few hundred dimensions the error is about 1e-7.
_SEARCH_ERROR = 4 / GRID


def nearest_neighbours(
    queries: np.ndarray, corpus: np.ndarray, k: int, exclude_same_row: bool
) -> tuple[np.ndarray, np.ndarray]:
    """The k corpus rows of largest inner product with each query, largest first, ties by lower index.

    Exact, and the same at any number of threads: faiss (IndexFlatIP) proposes, inner products in float64
    decide, rounded to multiples of 2**-20. What ties there is ordered by index.

    Args:
        queries: float32 [n, d], unit rows for cosine similarity.
        corpus: float32 [m, d].
        k: neighbours per query.
        exclude_same_row: corpus row i is no neighbour of query row i: both are the same documents.

    Returns:
        similarity float32 [n, k], rounded to the grid, and index int64 [n, k]. Where fewer than k neighbours
        exist the similarity is -inf and the index -1.

    Raises:
        ValueError: the arrays are no float32 matrices of one width, hold a value that is not finite, or
            k < 1.
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
    queries, corpus = np.ascontiguousarray(queries), np.ascontiguousarray(corpus)
    flat.add(corpus)

    pending = np.arange(len(queries))
    # One more than needed shows how near the candidates are that faiss left out.
    width = k + 1 + int(exclude_same_row)
    while pending.size:
        width = min(width, len(corpus))
        proposed, found = flat.search(queries[pending], width)
        exact = similarities(queries, corpus, np.repeat(pending, width), found.ravel()).reshape(found.shape)
        if exclude_same_row:
            own = found == pending[:, None]
            exact[own], found[own] = -np.inf, -1
        order = np.lexsort((found, -exact), axis=-1)[:, :k]
        size = order.shape[1]
        similarity[pending, :size] = np.take_along_axis(exact, order, axis=-1)
        index[pending, :size] = np.take_along_axis(found, order, axis=-1)
        if width == len(corpus):
            break
        # Rows whose last place could belong to a candidate that was left out look again among more.
        unsure = proposed.min(axis=1) + _SEARCH_ERROR >= similarity[pending, k - 1]
        pending = pending[unsure]
        width *= 2
    return similarity, index
