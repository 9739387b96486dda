"""The percentile bootstrap of ratios over whole clusters (Efron, "The jackknife, the bootstrap and other
resampling plans", 1982)."""

from collections.abc import Mapping
from typing import Any

import numpy as np

_DRAWS_AT_ONCE = 1 << 20


def resampled_ratios(sums: np.ndarray, units: np.ndarray, resamples: int, key: int) -> np.ndarray:
    """Sums per unit when the C clusters are drawn C times with replacement.

    Args:
        sums: float64 [m, C], m numerators of each cluster.
        units: [C], the denominator of each cluster, above 0.
        key: addresses the draws.

    Returns:
        float64 [m, resamples].
    """
    count = len(units)
    generator = np.random.Generator(np.random.Philox(key=key))
    columns = np.concatenate([sums, units[None, :]])
    totals = np.empty((len(columns), resamples))
    step = max(1, _DRAWS_AT_ONCE // count)
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        drawn = generator.integers(count, size=(size, count))
        # Summed by numpy and not by BLAS, whose order of summation depends on the number of threads.
        totals[:, start : start + size] = columns[:, drawn].sum(axis=-1)
    return totals[:-1] / totals[-1]


def mean_intervals(
    values: Mapping[str, np.ndarray], clusters: np.ndarray, resamples: int, key: int, level: float = 0.95
) -> dict[str, dict[str, Any]]:
    """Means with percentile intervals under resampling of whole clusters.

    Args:
        values: name -> numbers [n].
        clusters: integers [n], the cluster of each.
        key: addresses the draws, the same for every name.

    Returns:
        name -> {"estimate", "low", "high", "level"}; the bounds are None with fewer than 2 clusters.
    """
    _, members = np.unique(clusters, return_inverse=True)
    units = np.bincount(members).astype(np.float64)
    sums = np.stack([np.bincount(members, weights=value) for value in values.values()])
    bounds = np.full((len(sums), 2), None)
    if len(units) > 1:
        replicates = resampled_ratios(sums, units, resamples, key)
        bounds = np.quantile(replicates, [(1 - level) / 2, (1 + level) / 2], axis=1).T
    return {
        name: {"estimate": float(total.sum() / units.sum()), "low": low, "high": high, "level": level}
        for name, total, (low, high) in zip(values, sums, bounds.tolist(), strict=True)
    }
