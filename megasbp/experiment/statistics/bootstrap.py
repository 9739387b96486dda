"""The bootstrap over near-duplicate clusters of documents."""

import numpy as np

from megasbp.addressing import derive_key

# Elements of one chunk of bootstrap weights: 8 MB of float64, which stays near the cache.
_CHUNK_ELEMENTS = 1 << 20


def bootstrap_covariance(
    sums: np.ndarray, units: np.ndarray, seed: int, *, resamples: int = 10_000
) -> np.ndarray:
    """Covariance of m ratios sum(sums) / sum(units) under resampling of the clusters.

    A resample gives each of the C clusters a multinomial weight (C draws with replacement). The covariance is
    multiplied by C / (C - 1), without which the bootstrap of few clusters is too narrow by that factor.

    Args:
        sums: float64 [m, C], the m numerators of each cluster.
        units: float64 [C], the denominator of each cluster.
        seed: addresses the draws.
        resamples: how many.

    Returns:
        float64 [m, m].
    """
    count = units.size
    key = derive_key(seed, "document bootstrap", count)
    generator = np.random.Generator(np.random.Philox(key=key))
    columns = np.stack([*sums, units])
    rows = max(1, _CHUNK_ELEMENTS // count)
    totals = np.empty((columns.shape[0], resamples))
    for start in range(0, resamples, rows):
        size = min(rows, resamples - start)
        # Counting C uniform draws per row is the multinomial, four times as fast as drawing it as such.
        drawn = generator.integers(0, count, size=(size, count))
        drawn += np.arange(size)[:, None] * count
        weights = np.bincount(drawn.ravel(), minlength=size * count).reshape(size, count).astype(np.float64)
        for total, column in zip(totals, columns, strict=True):
            # einsum and not BLAS: its order of summation does not depend on the number of threads.
            total[start : start + size] = np.einsum("rc,c->r", weights, column)
    ratios = totals[:-1] / totals[-1]
    return np.atleast_2d(np.cov(ratios, ddof=1)) * (count / (count - 1))
