"""Whether a text shows which seed document it was written from, in an embedder's eyes.

A query is a text with its own seed. It is compared with its seed, and with other documents among which the
seed is to be found. Texts that ignore their seed find it no more often than chance does.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from scipy.stats import binomtest

import megasbp._C as core
from megasbp.addressing import derive_key
from megasbp.errors import InputError
from megasbp.evaluation.resampling import mean_intervals
from megasbp.pairing.pairs import similarity_histogram

_TOP = (1, 10)
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
# Queries whose candidates are gathered at once: 100 MB at 1,000 candidates of 768 numbers.
_QUERIES_AT_ONCE = 32


class Rows(Protocol):
    """A matrix of which rows are read: an array, or `megasbp.pairing.vectors.Vectors`."""

    def __getitem__(self, rows: np.ndarray, /) -> np.ndarray: ...


@dataclass(frozen=True)
class Queries:
    """Texts of one kind.

    Attributes:
        vectors: float32 [n, d], unit rows.
        seeds: int64 [n], the number of each one's own seed document.
    """

    vectors: np.ndarray
    seeds: np.ndarray


@dataclass(frozen=True)
class Candidates:
    """The documents among which a seed is to be found: a pure function of the key and the seed.

    What is related to the seed is never among them: a text that resembles a true partner of its seed more
    than the seed itself is no failure, and a true partner as a query would find itself. `related` knows only
    what it was made of; other documents of the seed's subject may be candidates, for every kind of query
    alike.

    Attributes:
        documents: how many there are to draw from, the seeds among them.
        related: seed -> integers, documents that are never its candidates; it need not name the seed.
        key: addresses the draws.
    """

    documents: int
    related: Callable[[int], np.ndarray]
    key: int

    def available(self, seed: int) -> int:
        """Documents that can be drawn for a seed."""
        return self.documents - len(self._excluded(seed))

    def draw(self, seed: int, count: int) -> np.ndarray:
        """int64 [count]: different documents, uniform without replacement; at most `available(seed)`."""
        excluded = self._excluded(seed)
        # Enough of the keyed order that all excluded ones may be among them.
        places = np.arange(min(count + len(excluded), self.documents))
        order = core.permute(self.documents, derive_key(self.key, "candidates", seed), places)
        return order[~np.isin(order, excluded)][:count]

    def _excluded(self, seed: int) -> np.ndarray:
        return np.union1d(self.related(seed), [seed])


def relation(
    arms: Mapping[str, Queries],
    partners: Mapping[int, np.ndarray],
    vectors: Rows,
    candidates: Candidates,
    *,
    count: int = 1000,
    resamples: int = 2000,
    level: float = 0.95,
) -> dict[str, Any]:
    """Similarity of texts to their seeds, and how well the texts find them.

    Beside the arms' texts stand, for the same seeds, two kinds of real text: "true", a true partner of the
    seed (one that is drawn, where there are several), and "unrelated", a document drawn at random. The seed
    has rank 1 plus the number of candidates at least as similar to the query: a tie counts against it, so
    that a text of which the embedder knows nothing finds nothing.

    Args:
        arms: name -> synthetic texts.
        partners: seed -> true partners; a seed without is no query of "true".
        vectors: unit rows of the documents that seeds, partners and candidates are numbers of.
        count: candidates of a query, its own seed among them; fewer where there are fewer documents.
        resamples: of the bootstrap over seeds.
        level: of its intervals.

    Returns:
        JSON-able: {"candidates": used, "chance": {"rank_1", "rank_10", "reciprocal_rank"}, "kinds": {name:
        {"documents", "seeds", "similarity": {"mean", "p5", "p25", "p50", "p75", "p95"}, "histogram",
        "rank_1", "rank_10": shares as intervals, "reciprocal_rank": its mean as an interval}}}.

    Raises:
        InputError: no texts, or fewer than 2 candidates.
    """
    seeds = np.unique(np.concatenate([np.empty(0, np.int64), *(queries.seeds for queries in arms.values())]))
    if not len(seeds):
        raise InputError("relation: there are no synthetic documents; relax the filters of [synthesis]")
    # One of the available documents is the unrelated text, so that it is never its own candidate.
    used = min(count, *(candidates.available(int(seed)) for seed in seeds))
    if used < 2:
        raise InputError(
            f"relation: a seed has too few unrelated ones among {candidates.documents} documents; "
            "raise corpus.unique"
        )
    drawn = {int(seed): candidates.draw(int(seed), used) for seed in seeds}
    kinds = {**arms, **_real(seeds, partners, drawn, vectors, candidates.key)}
    return {
        "candidates": used,
        "chance": _chance(used),
        "kinds": {
            name: _measured(queries, drawn, vectors, resamples, derive_key(candidates.key, name), level)
            for name, queries in kinds.items()
            if len(queries.seeds)
        },
    }


def _real(
    seeds: np.ndarray,
    partners: Mapping[int, np.ndarray],
    drawn: Mapping[int, np.ndarray],
    vectors: Rows,
    key: int,
) -> dict[str, Queries]:
    paired = [int(seed) for seed in seeds if len(partners.get(int(seed), ()))]
    true = [
        partners[seed][derive_key(key, "true partner", seed) % len(partners[seed])].item() for seed in paired
    ]
    unrelated = [drawn[int(seed)][0].item() for seed in seeds]
    return {
        "true": Queries(vectors[np.array(true, np.int64)], np.array(paired, np.int64)),
        "unrelated": Queries(vectors[np.array(unrelated, np.int64)], seeds),
    }


def _measured(
    queries: Queries, drawn: Mapping[int, np.ndarray], vectors: Rows, resamples: int, key: int, level: float
) -> dict[str, Any]:
    own, ranks = _ranks(queries, drawn, vectors)
    quantiles = np.quantile(own, _QUANTILES).tolist()
    found = {f"rank_{top}": (ranks <= top).astype(np.float64) for top in _TOP}
    intervals = mean_intervals({**found, "reciprocal_rank": 1 / ranks}, queries.seeds, resamples, key, level)
    seeds = len(np.unique(queries.seeds))
    for name in found:
        if intervals[name]["estimate"] in {0.0, 1.0}:
            # Resampling what is all alike gives no width; Wilson's interval of as many seeds does.
            bounds = binomtest(round(seeds * intervals[name]["estimate"]), seeds).proportion_ci(
                level, "wilson"
            )
            intervals[name] |= {"low": float(bounds.low), "high": float(bounds.high)}
    return {
        "documents": len(own),
        "seeds": seeds,
        "similarity": {
            "mean": float(own.mean()),
            **{f"p{round(100 * q)}": value for q, value in zip(_QUANTILES, quantiles, strict=True)},
        },
        "histogram": similarity_histogram(own),
        **intervals,
    }


def _ranks(queries: Queries, drawn: Mapping[int, np.ndarray], vectors: Rows) -> tuple[np.ndarray, np.ndarray]:
    """Similarity to the own seed, float64 [n], and the seed's rank among the candidates, int64 [n]."""
    own, ranks = np.empty(len(queries.seeds)), np.empty(len(queries.seeds), np.int64)
    for start in range(0, len(own), _QUERIES_AT_ONCE):
        here = slice(start, start + _QUERIES_AT_ONCE)
        # The own seed first, then the candidates without the document that is the unrelated text.
        rows = np.stack([np.concatenate([[seed], drawn[int(seed)][1:]]) for seed in queries.seeds[here]])
        found = vectors[rows.ravel()].reshape(*rows.shape, -1)
        # einsum and not BLAS: its order of summation does not depend on the number of threads.
        products = np.einsum("qcd,qd->qc", found, queries.vectors[here]).astype(np.float64)
        own[here] = products[:, 0]
        ranks[here] = (products >= products[:, :1]).sum(axis=1)
    return own, ranks


def _chance(candidates: int) -> dict[str, float]:
    """What texts that know nothing of their seeds reach on average."""
    shares = {f"rank_{top}": min(top, candidates) / candidates for top in _TOP}
    return {**shares, "reciprocal_rank": float((1 / np.arange(1, candidates + 1)).sum() / candidates)}
