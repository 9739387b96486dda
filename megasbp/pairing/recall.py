"""How many of the true nearest neighbours a search has found."""

from dataclasses import dataclass

import numpy as np

from megasbp.addressing import derive_key
from megasbp.pairing.join import best_among
from megasbp.pairing.similarity import GRID, similarities
from megasbp.pairing.vectors import Vectors

# Similarities are compared on a grid; one step of it is no difference.
TOLERANCE = 1 / GRID


@dataclass(frozen=True)
class Truth:
    """Exact neighbours of a sample of queries.

    Attributes:
        query: int64 [s], rising query rows.
        similarity: float32 [s, k], falling; -inf where the corpus has fewer rows.
        row: int64 [s, k], -1 likewise.
    """

    query: np.ndarray
    similarity: np.ndarray
    row: np.ndarray

    def every_other(self, first: int) -> "Truth":
        """The sample's queries first, first + 2, ..."""
        return Truth(self.query[first::2], self.similarity[first::2], self.row[first::2])


def sample_truth(
    queries: np.ndarray | Vectors,
    corpus: np.ndarray | Vectors,
    k: int,
    size: int,
    *,
    exclude_same_row: bool,
    seed: int = 0,
) -> Truth:
    """Searches the whole corpus, streamed, for the neighbours of at most `size` random queries."""
    generator = np.random.Generator(np.random.Philox(key=derive_key(seed, "recall sample")))
    query = np.sort(generator.choice(len(queries), min(size, len(queries)), replace=False, shuffle=False))
    own_row = query if exclude_same_row else None
    similarity, row = best_among(queries[query], corpus, k, own_row=own_row)
    return Truth(query, similarity, row)


def tie_aware_recall(found: np.ndarray, true: np.ndarray, tolerance: float = TOLERANCE) -> np.ndarray:
    """float64 [s]: the share of places among the true neighbours that each query has filled.

    A neighbour that is found counts if it is at least as similar as the last true one, less `tolerance`:
    where several rows tie for the last place, any of them is right.

    Args:
        found: [s, k] similarities of the neighbours that were found; -inf where none was.
        true: [s, k] similarities of the exact ones, falling; -inf where the corpus has no more.
    """
    wanted = np.isfinite(true).sum(axis=1)
    last = np.take_along_axis(true, np.maximum(wanted - 1, 0)[:, None], axis=1)
    right = np.isfinite(found) & (found >= last - tolerance)
    return np.where(wanted > 0, np.minimum(right.sum(axis=1), wanted) / np.maximum(wanted, 1), 1.0)


def found_similarities(
    queries: np.ndarray | Vectors,
    corpus: np.ndarray | Vectors,
    truth: Truth,
    row: np.ndarray,
    *,
    exclude_same_row: bool,
) -> np.ndarray:
    """float64 [s, k]: what a search's rows are worth; -inf for no row, one given twice, or the query itself.

    Args:
        row: int64 [s, k], what the search found for `truth.query`.
    """
    ordered = np.sort(row, axis=1)
    twice = np.zeros(row.shape, dtype=bool)
    twice[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    counts = (ordered >= 0) & ~twice
    if exclude_same_row:
        counts &= ordered != truth.query[:, None]
    place, _ = np.nonzero(counts)
    result = np.full(row.shape, -np.inf)
    # The sample's queries together, so that each file of the corpus is opened once.
    result[counts] = similarities(queries[truth.query], corpus, place, ordered[counts])
    return result
