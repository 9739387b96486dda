"""Clusters of near-duplicate documents: MinHash bands propose pairs, exact Jaccard similarity decides."""

from collections.abc import Iterable

import numpy as np

import megasbp._C as core
from megasbp.addressing import derive_key
from megasbp.errors import InputError
from megasbp.overlap.documents import flat_batches
from megasbp.overlap.shingles import checked_width

SIGNATURE_SLOTS = 128
_RECALL_AT_THRESHOLD = 0.98


def near_duplicate_clusters(
    documents: Iterable[np.ndarray], *, width: int, threshold: float, seed: int
) -> np.ndarray:
    """Groups documents that are joined by chains of pairs with Jaccard similarity >= `threshold`.

    Every candidate pair is verified, so two documents are never joined without a chain of such pairs. A pair
    right at the threshold is found with a probability of at least 0.98, a more similar one with a higher. The
    partition does not depend on the order of the documents. Memory: 8 bytes per token and at most 1 KB per
    document; `megasbp.overlap.corpus_clusters` is for corpora that this does not hold.

    Args:
        documents: token arrays (or `word_hashes`), read once.
        width: shingle width in tokens; for documents shorter than it see `megasbp.overlap.shingles`.
        threshold: in (0, 1].
        seed: of the hash functions.

    Returns:
        int64 [documents]: each document's cluster, named by its smallest document number.

    Raises:
        InputError: width or threshold out of range.
    """
    checked_width(width)
    rows = rows_per_band(threshold)
    functions = SIGNATURE_SLOTS // rows * rows
    keys = [
        np.array([derive_key(seed, "minhash", part, i) for i in range(functions)], np.uint64)
        for part in ("multiplier", "increment")
    ]
    finder = core.DuplicateFinder(width, rows, *keys)
    for tokens, offsets in flat_batches(documents):
        finder.add(tokens, offsets)
    finder.join_equal()
    # One call a band, so that an interrupt is heard between them.
    for band in range(finder.bands):
        finder.join_band(band, threshold)
    return finder.labels()


def rows_per_band(threshold: float) -> int:
    """The most hash values per band that still find a pair at the threshold with probability >= 0.98.

    With b = 128 // r bands of r rows, a pair of similarity s becomes a candidate with probability
    1 - (1 - s**r)**b (Leskovec, Rajaraman, Ullman, "Mining of Massive Datasets", section 3.4). More rows mean
    fewer pairs to verify.

    Raises:
        InputError: the threshold is not in (0, 1], or so low that one row is not enough.
    """
    if not 0 < threshold <= 1:
        raise InputError(f"duplicate threshold {threshold}: must be above 0 and at most 1 (0.7 is usual)")
    enough = [
        r
        for r in range(1, SIGNATURE_SLOTS + 1)
        if _candidate_probability(threshold, r) >= _RECALL_AT_THRESHOLD
    ]
    if not enough:
        raise InputError(
            f"duplicate threshold {threshold}: too low to be found by MinHash; set it to at least 0.05"
        )
    return max(enough)


def _candidate_probability(similarity: float, rows: int) -> float:
    return 1 - (1 - similarity**rows) ** (SIGNATURE_SLOTS // rows)
