"""From neighbours to pairs: the band, near-duplicates and caps; and what the neighbours look like."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from scipy import stats

from megasbp.pairing.config import PairingConfig
from megasbp.pairing.table import pair_table


@dataclass(frozen=True)
class PairSelection:
    """The pairs that were kept and why the others were not.

    Attributes:
        table: pair table, ordered by seed_doc, then target_doc.
        candidates: neighbours looked at; always `table.num_rows` + the sum of `drops`.
        drops: reason -> candidates dropped; a candidate counts for the first reason that applies, in this
            order: same_parent, below_band, above_band, near_duplicate, seed_cap, target_cap.
    """

    table: pa.Table
    candidates: int
    drops: dict[str, int]


def select_pairs(
    similarity: np.ndarray,
    index: np.ndarray,
    jaccard: Callable[[np.ndarray, np.ndarray], np.ndarray],
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
    candidates = len(values)
    drops: dict[str, int] = {}

    def keep(reason: str, wanted: np.ndarray) -> np.ndarray:
        drops[reason] = int(np.count_nonzero(~wanted))
        return np.flatnonzero(wanted)

    # `kept` holds positions of surviving candidates; each test sees only those.
    related = np.zeros(candidates, dtype=bool)
    if forbidden_same is not None:
        related = forbidden_same[seeds] == forbidden_same[targets]
    kept = keep("same_parent", ~related)
    # float32 on both sides: a similarity that equals the bound as written in the recipe lies inside the band.
    kept = kept[keep("below_band", values[kept] >= np.float32(config.minimum_similarity))]
    kept = kept[keep("above_band", values[kept] <= np.float32(config.maximum_similarity))]
    shared = np.asarray(jaccard(seeds[kept], targets[kept]), dtype=np.float64)
    unlike = keep("near_duplicate", shared <= config.maximum_jaccard)
    kept, shared = kept[unlike], shared[unlike]

    order = np.lexsort((targets[kept], seeds[kept], -values[kept]))
    kept, shared = kept[order], shared[order]
    within, drops["seed_cap"], drops["target_cap"] = _cap(seeds[kept], targets[kept], config)
    kept, shared = kept[within], shared[within]

    order = np.lexsort((targets[kept], seeds[kept]))
    kept, shared = kept[order], shared[order]
    table = pair_table(seeds[kept], targets[kept], values[kept], shared, ranks[kept], source)
    return PairSelection(table, candidates, drops)


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
    Journal
    of Machine Learning Research 11, 2010: 0 is no hubs, above about 2 is strong.

    Args:
        neighbours: integers of any shape, document ids as found; -1 is ignored.
        documents: number of documents that could have been found.

    Returns:
        "skewness" (0 when all in-degrees are equal), "maximum" in-degree, "mean" in-degree, and "never", the
        share of documents that are nobody's neighbour.
    """
    found = np.asarray(neighbours).ravel()
    degrees = np.bincount(found[found >= 0], minlength=documents).astype(np.float64)
    skewness = float(stats.skew(degrees)) if degrees.size and np.ptp(degrees) > 0 else 0.0
    return {
        "skewness": skewness,
        "maximum": int(degrees.max(initial=0)),
        "mean": float(degrees.mean()) if degrees.size else 0.0,
        "never": float(np.mean(degrees == 0)) if degrees.size else 0.0,
    }


def _cap(seeds: np.ndarray, targets: np.ndarray, config: PairingConfig) -> tuple[np.ndarray, int, int]:
    """Walks the candidates in order: positions within both caps, drops by each of the two caps."""
    per_seed: dict[int, int] = {}
    per_target: dict[int, int] = {}
    kept: list[int] = []
    seed_drops = target_drops = 0
    for position, (seed, target) in enumerate(zip(seeds.tolist(), targets.tolist(), strict=True)):
        if per_seed.get(seed, 0) >= config.maximum_per_seed:
            seed_drops += 1
        elif per_target.get(target, 0) >= config.maximum_per_target:
            target_drops += 1
        else:
            per_seed[seed] = per_seed.get(seed, 0) + 1
            per_target[target] = per_target.get(target, 0) + 1
            kept.append(position)
    return np.array(kept, dtype=np.int64), seed_drops, target_drops
