"""Whether synthetic text keeps the topics of the text it was learnt from: k-means over an embedder's vectors.

A distribution over topics is estimated from a sample, and two samples of one text differ too. So divergences
are those of samples of one size, and stand beside that of two samples of the unique text.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.spatial.distance import jensenshannon
from scipy.stats import binom
from sklearn.cluster import MiniBatchKMeans
from threadpoolctl import threadpool_limits

from megasbp.addressing import derive_key
from megasbp.errors import InputError

# Documents of a topic on average, at least: fewer topics are made of a smaller corpus.
_FEWEST_PER_TOPIC = 10
_BATCH = 4096
_DRAWS = 200
# A topic is over-represented from so many times its share on.
_TIMES = 2
# That chance alone makes a lost or over-represented topic in a set, at most.
_LEVEL = 0.01


class Topics:
    """Regions of the embedder's sphere around centres that k-means finds, with a fixed seed.

    Attributes:
        centres: float [topics, d].
    """

    def __init__(self, vectors: np.ndarray, topics: int, seed: int) -> None:
        """Finds at most `topics` in unit rows, float32 [n, d]; fewer where there are not ten rows for each.

        Raises:
            InputError: fewer rows than two topics need.
        """
        count = min(topics, len(vectors) // _FEWEST_PER_TOPIC)
        if count < 2:
            raise InputError(
                f"topics: {len(vectors)} documents are too few; raise corpus.unique to at least "
                f"{2 * _FEWEST_PER_TOPIC}"
            )
        state = derive_key(seed, "k-means") % 2**32
        self._model = MiniBatchKMeans(count, batch_size=_BATCH, n_init=3, random_state=state)
        # One thread: sums over threads come in any order.
        with threadpool_limits(1):
            self._model.fit(vectors)
        self.centres: np.ndarray = self._model.cluster_centers_

    def of(self, vectors: np.ndarray) -> np.ndarray:
        """The topic of each row, int64 [n]."""
        with threadpool_limits(1):
            parts = [
                self._model.predict(vectors[start : start + _BATCH])
                for start in range(0, len(vectors), _BATCH)
            ]
        return np.concatenate([np.empty(0, np.int64), *parts]).astype(np.int64)


def topic_shift(unique: np.ndarray, sets: Mapping[str, np.ndarray], topics: int, seed: int) -> dict[str, Any]:
    """How far distributions over topics lie from the unique text's.

    The divergence is Jensen and Shannon's in bits, in [0, 1] (Lin, "Divergence measures based on the Shannon
    entropy", 1991), averaged over draws of n documents of a set and n of the unique text. "null" is that of
    two disjoint draws of n documents of the unique text: what no shift looks like.

    Args:
        unique: topics of the unique documents, integers [m].
        sets: name -> topics of its documents.
        topics: their number.
        seed: addresses the draws.

    Returns:
        JSON-able: {"topics", "size": n, the largest that all sets and half of the unique text have, "null":
        {"mean", "p95"}, "sets": {name: {"documents", "divergence", "lost": topics without a document,
        "over_represented": topics with twice their share or more}}}; of both only those that chance would not
        bring, at 99% for all topics of a set.

    Raises:
        InputError: a set has no documents.
    """
    counts = {name: np.bincount(found, minlength=topics) for name, found in sets.items()}
    whole = np.bincount(unique, minlength=topics)
    size = min(len(unique) // 2, *(len(found) for found in sets.values()))
    if size < 1:
        raise InputError("topics: a set has no documents; raise the synthetic budget or relax the filters")
    generator = np.random.Generator(np.random.Philox(key=derive_key(seed, "topic draws")))
    null = np.empty(_DRAWS)
    divergences = {name: np.empty(_DRAWS) for name in sets}
    for draw in range(_DRAWS):
        reference = generator.multivariate_hypergeometric(whole, size)
        null[draw] = _divergence(reference, generator.multivariate_hypergeometric(whole - reference, size))
        for name, count in counts.items():
            sample = generator.multivariate_hypergeometric(count, size)
            divergences[name][draw] = _divergence(reference, sample)
    return {
        "topics": topics,
        "size": size,
        "null": {"mean": float(null.mean()), "p95": float(np.quantile(null, 0.95))},
        "sets": {
            name: {
                "documents": len(sets[name]),
                "divergence": float(divergences[name].mean()),
                **_extremes(count, whole),
            }
            for name, count in counts.items()
        },
    }


def most_shifted(unique: np.ndarray, sets: Mapping[str, np.ndarray], topics: int, count: int) -> list[int]:
    """Topics whose share in a set differs most from that in the unique text, the largest difference first."""
    whole = np.bincount(unique, minlength=topics) / len(unique)
    shares = [np.bincount(found, minlength=topics) / len(found) for found in sets.values()]
    differences = np.abs(np.stack(shares) - whole).max(axis=0)
    return np.argsort(-differences, kind="stable")[:count].tolist()


def _divergence(first: np.ndarray, second: np.ndarray) -> float:
    # scipy gives the square root, which is the distance.
    return float(jensenshannon(first, second, base=2) ** 2)


def _extremes(count: np.ndarray, whole: np.ndarray) -> dict[str, int]:
    """Topics lost and over-represented, by an exact test of each at a level divided by their number.

    Without a shift, of a topic's documents in both texts those in one are binomial.
    """
    share = count.sum() / (count.sum() + whole.sum())
    both, level = count + whole, _LEVEL / len(count)
    lost = (count == 0) & (binom.cdf(0, both, share) < level)
    above = (count * whole.sum() >= _TIMES * whole * count.sum()) & (binom.sf(count - 1, both, share) < level)
    return {"lost": int(lost.sum()), "over_represented": int(above.sum())}
