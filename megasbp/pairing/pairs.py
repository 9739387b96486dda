"""From candidates to pairs: the band, near-duplicates and caps; and what the pairs look like."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from scipy import stats

import megasbp._C as core
from megasbp.pairing.config import PairingConfig
from megasbp.pairing.similarity import similarities
from megasbp.pairing.table import pair_table
from megasbp.pairing.vectors import Vectors

# (seed ids int64 [c], target ids int64 [c]) -> floats [c]
Jaccard = Callable[[np.ndarray, np.ndarray], np.ndarray]
Similarity = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class PairSelection:
    """The pairs that were kept and why the others were not.

    Attributes:
        table: pair table, ordered by seed_doc, then target_doc.
        candidates: pairs looked at; always `table.num_rows` + the sum of `drops`.
        drops: reason -> candidates dropped; a candidate counts for the first reason that applies, in this
            order: same_parent, below_band, above_band or duplicate, near_duplicate, seed_cap, target_cap.
        offered_targets: int64, the target of every candidate that only the caps could drop.
    """

    table: pa.Table
    candidates: int
    drops: dict[str, int]
    offered_targets: np.ndarray


def select_pairs(
    similarity: np.ndarray,
    index: np.ndarray,
    jaccard: Jaccard,
    config: PairingConfig,
    *,
    query_role: Literal["seed", "target"],
    query_documents: np.ndarray | None = None,
    corpus_documents: np.ndarray | None = None,
    forbidden_same: np.ndarray | None = None,
    source: str = "neighbours",
) -> PairSelection:
    """Keeps the neighbours in the similarity band that are no near-duplicates, up to a number per document.

    The caps are filled greedily by falling similarity, then by lower seed_doc, then by lower target_doc.

    Args:
        similarity, index: float32 and int64 [n, k] of `nearest_neighbours`; an index of -1 is no candidate.
        jaccard: (seed ids int64 [c], target ids int64 [c]) -> floats [c], the share of token shingles in
            common; called once, with the candidates inside the band.
        config: band, maximum_jaccard and caps.
        query_role: what the n queries are in their pairs; the corpus rows are the other.
        query_documents, corpus_documents: int64, document id of each query and of each corpus row; row
            numbers by default.
        forbidden_same: int64 by document id; two documents with the same value never pair (for passages: the
            article they come from). Only where seeds and targets are of one dataset.
        source: written to the table.
    """
    rows, ranks = np.nonzero(index >= 0)
    found = index[rows, ranks]
    queries = rows if query_documents is None else query_documents[rows]
    others = found if corpus_documents is None else corpus_documents[found]
    seeds, targets = (queries, others) if query_role == "seed" else (others, queries)
    values = similarity[rows, ranks]
    drops: dict[str, int] = {}
    kept = _of_different_parents(seeds, targets, forbidden_same, drops)
    # float32 on both sides: a similarity that equals the bound as written in the recipe lies inside the band.
    kept = kept[_keep(drops, "below_band", values[kept] >= np.float32(config.minimum_similarity))]
    kept = kept[_keep(drops, "above_band", values[kept] <= np.float32(config.maximum_similarity))]
    kept, shared = _unlike(kept, seeds, targets, jaccard, config, drops)
    within = _cap(seeds[kept], targets[kept], config, drops, values[kept])
    offered, kept, shared = targets[kept], kept[within], shared[within]
    table = pair_table(seeds[kept], targets[kept], values[kept], shared, ranks[kept], source)
    return PairSelection(table, len(values), drops, offered)


def select_listed(
    seeds: np.ndarray,
    targets: np.ndarray,
    jaccard: Jaccard,
    config: PairingConfig,
    *,
    similarity: Similarity | None = None,
    forbidden_same: np.ndarray | None = None,
    source: str,
) -> PairSelection:
    """Keeps the pairs of a source that names them, once each, that are no near-duplicates, under the caps.

    The caps are filled greedily in the order given. Similarity decides nothing here; it is measured for the
    pairs that are kept.

    Args:
        seeds, targets: int64 [n], documents of each pair in its datasets.
        jaccard, config, forbidden_same, source: as for `select_pairs`; the band is not looked at.
        similarity: (seed ids int64 [c], target ids int64 [c]) -> floats [c]; None leaves it unknown.
    """
    drops: dict[str, int] = {}
    kept = _of_different_parents(seeds, targets, forbidden_same, drops)
    kept = kept[_keep(drops, "duplicate", _first_of_equals(seeds[kept], targets[kept]))]
    kept, shared = _unlike(kept, seeds, targets, jaccard, config, drops)
    within = _cap(seeds[kept], targets[kept], config, drops)
    offered, kept, shared = targets[kept], kept[within], shared[within]
    values = np.full(len(kept), np.nan) if similarity is None else similarity(seeds[kept], targets[kept])
    unranked = np.full(len(kept), -1)
    table = pair_table(seeds[kept], targets[kept], values, shared, unranked, source)
    return PairSelection(table, len(seeds), drops, offered)


def pair_similarity(
    seed_vectors: np.ndarray | Vectors,
    target_vectors: np.ndarray | Vectors,
    seeds: np.ndarray,
    targets: np.ndarray,
) -> np.ndarray:
    """float32 [n]: inner product of seed_vectors[seeds[i]] and target_vectors[targets[i]], both unit rows."""
    return similarities(seed_vectors, target_vectors, seeds, targets).astype(np.float32)


def similarity_histogram(similarity: np.ndarray, bin_width: float = 0.05) -> dict[str, list]:
    """Counts of similarities in bins of equal width over [-1, 1]; infinities (no neighbour) are left out.

    Returns:
        "edges": b + 1 bin edges, "counts": b counts. A bin holds its lower edge, the last one also its upper.
    """
    bins = round(2 / bin_width)
    values = np.asarray(similarity, dtype=np.float64).ravel()
    # Unit vectors in float32 may have a product a little above 1.
    clipped = np.clip(values[np.isfinite(values)], -1, 1)
    edges = np.round(np.linspace(-1, 1, bins + 1), 9)
    return {"edges": edges.tolist(), "counts": np.histogram(clipped, edges)[0].tolist()}


def hubness(neighbours: np.ndarray, documents: int) -> dict[str, Any]:
    """How unequally often documents are found as neighbours.

    The skewness of the in-degree is the measure of Radovanovic, Nanopoulos, Ivanovic, "Hubs in space",
    Journal of Machine Learning Research 11, 2010: 0 is no hubs, above about 2 is strong.

    Args:
        neighbours: integers of any shape, document ids as found; -1 is ignored.
        documents: number of documents that could have been found.

    Returns:
        "skewness" (0 when all in-degrees are equal), "maximum" in-degree, "mean" in-degree, and "never", the
        share of documents that are nobody's neighbour.
    """
    degrees = _in_degrees(neighbours, documents).astype(np.float64)
    skewness = float(stats.skew(degrees)) if degrees.size and np.ptp(degrees) > 0 else 0.0
    return {
        "skewness": skewness,
        "maximum": int(degrees.max(initial=0)),
        "mean": float(degrees.mean()) if degrees.size else 0.0,
        "never": float(np.mean(degrees == 0)) if degrees.size else 0.0,
    }


def in_degree_histogram(neighbours: np.ndarray, documents: int, maximum_bins: int = 40) -> dict[str, list]:
    """How many documents are found how often: counts in bins of one whole width from in-degree 0 on.

    Args:
        neighbours, documents: as for `hubness`.
        maximum_bins: the width is the least that needs no more bins than this.

    Returns:
        "edges": b + 1 integers, "counts": b counts. A bin holds the in-degrees from its lower edge to below
        its upper one.
    """
    sizes = np.bincount(_in_degrees(neighbours, documents))
    width = -(-len(sizes) // maximum_bins)
    bins = -(-len(sizes) // width)
    padded = np.zeros(bins * width, dtype=np.int64)
    padded[: len(sizes)] = sizes
    edges = np.arange(bins + 1) * width
    return {"edges": edges.tolist(), "counts": padded.reshape(bins, width).sum(axis=1).tolist()}


def _in_degrees(neighbours: np.ndarray, documents: int) -> np.ndarray:
    found = np.asarray(neighbours).ravel()
    return np.bincount(found[found >= 0], minlength=documents)


def _keep(drops: dict[str, int], reason: str, wanted: np.ndarray) -> np.ndarray:
    """Positions that are wanted; the others are counted."""
    drops[reason] = int(np.count_nonzero(~wanted))
    return np.flatnonzero(wanted)


def _of_different_parents(
    seeds: np.ndarray, targets: np.ndarray, forbidden_same: np.ndarray | None, drops: dict[str, int]
) -> np.ndarray:
    related = np.zeros(len(seeds), dtype=bool)
    if forbidden_same is not None:
        related = forbidden_same[seeds] == forbidden_same[targets]
    return _keep(drops, "same_parent", ~related)


def _first_of_equals(seeds: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """bool [n]: whether no earlier pair has the same seed and target."""
    first = np.zeros(len(seeds), dtype=bool)
    # One number per pair: documents number below 2**31.5, far beyond any corpus.
    pairs = seeds * (targets.max(initial=0) + 1) + targets
    first[np.unique(pairs, return_index=True)[1]] = True
    return first


def _unlike(
    kept: np.ndarray,
    seeds: np.ndarray,
    targets: np.ndarray,
    jaccard: Jaccard,
    config: PairingConfig,
    drops: dict[str, int],
) -> tuple[np.ndarray, np.ndarray]:
    """The candidates that are no near-duplicates, and the share of shingles that each has in common."""
    shared = np.asarray(jaccard(seeds[kept], targets[kept]), dtype=np.float64)
    unlike = _keep(drops, "near_duplicate", shared <= config.maximum_jaccard)
    return kept[unlike], shared[unlike]


def _cap(
    seeds: np.ndarray,
    targets: np.ndarray,
    config: PairingConfig,
    drops: dict[str, int],
    values: np.ndarray | None = None,
) -> np.ndarray:
    """Positions within both caps, ordered by seed and target; the walk is by falling value, or as given."""
    within, drops["seed_cap"], drops["target_cap"] = core.cap_pairs(
        seeds, targets, config.maximum_per_seed, config.maximum_per_target, values
    )
    return within
