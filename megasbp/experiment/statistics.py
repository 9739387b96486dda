"""How sure we are: intervals for held-out losses, paired differences and the share of the oracle's gain.

The estimand is the token-weighted held-out loss in nats per byte: the sum of nats over the test documents
divided by the sum of their bytes. Two things vary: the seed, which reruns the whole pipeline, and the test
documents, which are a sample of the text one cares about (near-duplicates come in clusters, so clusters are
the sampled unit).

For the mean over S seeds, with C clusters,

    variance = V_seed / S + V_document
    interval = estimate -+ t(nu) * sqrt(variance)
    nu       = variance^2 / ((V_seed / S)^2 / (S - 1) + V_document^2 / (C - 1))

V_seed is the sample variance of the per-seed values and V_document the cluster-bootstrap variance of the
seed average. nu is Satterthwaite's approximation ("An approximate distribution of estimates of variance
components", Biometrics Bulletin 2, 1946). Seeds and documents are crossed, so the variance of their
interaction is in both terms: the interval errs on the wide side (Owen, "The pigeonhole bootstrap", Annals of
Applied Statistics 1, 2007). One seed says nothing about V_seed; its interval holds the run fixed and is
labelled so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy import stats

from megasbp.addressing import derive_key
from megasbp.errors import InputError

CONDITIONAL = "conditional on this run"
# Elements of one chunk of bootstrap weights: 8 MB of float64, which stays near the cache.
_CHUNK_ELEMENTS = 1 << 20


@dataclass(frozen=True)
class HeldOutLosses:
    """The losses of one arm on the test documents.

    Attributes:
        nats: seed -> float64 [documents], summed loss of each document.
        units: int64 [documents], divisor of the loss: bytes of each document (tokens, for pair losses).
        clusters: int64 [documents], label of the near-duplicate cluster of each document.

    Raises:
        ValueError: the arrays differ in length, a document has no units, or there is no seed.
        InputError: a loss is not finite, or the documents form fewer than two clusters.
    """

    nats: Mapping[int, np.ndarray]
    units: np.ndarray
    clusters: np.ndarray

    def __post_init__(self) -> None:
        shape = np.shape(self.units)
        if len(shape) != 1 or np.shape(self.clusters) != shape:
            raise ValueError(
                f"units {shape} and clusters {np.shape(self.clusters)} must be one-dimensional and alike"
            )
        if not self.nats:
            raise ValueError("nats is empty; give the losses of at least one seed")
        if shape[0] and np.min(self.units) <= 0:
            raise ValueError(f"units has the value {np.min(self.units)}; every document needs at least 1")
        for seed, nats in self.nats.items():
            if np.shape(nats) != shape:
                raise ValueError(f"seed {seed}: nats {np.shape(nats)} must have the shape of units, {shape}")
            bad = int(np.count_nonzero(~np.isfinite(nats)))
            if bad:
                raise InputError(
                    f"seed {seed}: the loss of {bad} of {shape[0]} test documents is not finite; "
                    "the run diverged: lower its learning rate"
                )
        count = np.unique(self.clusters).size
        if count < 2:
            raise InputError(
                f"the test split has {count} cluster(s) of documents, an interval needs at least 2; "
                "enlarge the test split"
            )


@dataclass(frozen=True)
class Estimate:
    """An estimate with its interval.

    Attributes:
        estimate: nats per unit.
        low, high: bounds of the two-sided interval.
        level: its nominal coverage.
        p: two-sided p-value of "the true value is 0"; None for a loss, where that question is empty.
        standard_error: of the estimate, from seeds and documents together.
        seed_error, document_error: its two parts; `seed_error` is None for one seed.
        degrees_of_freedom: Satterthwaite's.
        seeds: the seeds averaged over.
        clusters: clusters of test documents.
        label: "over S seeds" or `CONDITIONAL`.
    """

    estimate: float
    low: float
    high: float
    level: float
    p: float | None
    standard_error: float
    seed_error: float | None
    document_error: float
    degrees_of_freedom: float
    seeds: tuple[int, ...]
    clusters: int
    label: str


@dataclass(frozen=True)
class Share:
    """The share of the oracle's gain that another arm reaches: a Fieller set.

    Attributes:
        kind: "interval": the set is [low, high]; "complement": it is everything up to `low` and everything
            from `high` on; "line": it is every number; "no gain": the oracle is significantly *worse* than
            the baseline, so there is no gain to take a share of.
        estimate: the ratio; None (withheld) unless `kind` is "interval".
        low, high: see `kind`; None for "line" and "no gain".
        level, degrees_of_freedom, seeds, clusters, label: as in `Estimate`.
    """

    kind: Literal["interval", "complement", "line", "no gain"]
    estimate: float | None
    low: float | None
    high: float | None
    level: float
    degrees_of_freedom: float
    seeds: tuple[int, ...]
    clusters: int
    label: str


@dataclass(frozen=True)
class _Moments:
    """Means over seeds of m quantities, with the covariances of these means from seeds and from documents."""

    mean: np.ndarray  # [m]
    seed_covariance: np.ndarray | None  # [m, m]; None for one seed
    document_covariance: np.ndarray  # [m, m]
    seeds: tuple[int, ...]
    clusters: int

    @property
    def covariance(self) -> np.ndarray:
        return self.document_covariance + (0.0 if self.seed_covariance is None else self.seed_covariance)

    @property
    def label(self) -> str:
        return CONDITIONAL if len(self.seeds) == 1 else f"over {len(self.seeds)} seeds"

    def degrees_of_freedom(self, index: int) -> float:
        """Satterthwaite's degrees of freedom of quantity `index`."""
        document = float(self.document_covariance[index, index])
        seed = 0.0 if self.seed_covariance is None else float(self.seed_covariance[index, index])
        total = seed + document
        if self.seed_covariance is None or total == 0.0:
            return float(self.clusters - 1)
        # Shares instead of variances: their squares cannot underflow.
        parts = (seed / total) ** 2 / (len(self.seeds) - 1) + (document / total) ** 2 / (self.clusters - 1)
        return 1.0 / parts


def per_seed_losses(arm: HeldOutLosses) -> dict[int, float]:
    """Nats per unit of each seed: sum of nats / sum of units."""
    total = int(np.sum(arm.units))
    return {seed: float(np.sum(nats, dtype=np.float64)) / total for seed, nats in sorted(arm.nats.items())}


def arm_loss(arm: HeldOutLosses, seed: int, *, resamples: int = 10_000, level: float = 0.95) -> Estimate:
    """The held-out loss of an arm, averaged over its seeds.

    Intervals of two arms may overlap although their paired difference is significant: compare by `contrast`.

    Args:
        arm: its losses.
        seed: the run's seed; it addresses the bootstrap, so equal calls give equal bytes.
        resamples: bootstrap resamples of the document clusters.
        level: nominal coverage of the interval.
    """
    seeds = tuple(sorted(arm.nats))
    values = np.stack([arm.nats[one] for one in seeds])[:, None, :]
    return _estimate(_moments(values, arm, seeds, seed, resamples), level, test_zero=False)


def contrast(
    treatment: HeldOutLosses,
    reference: HeldOutLosses,
    seed: int,
    *,
    resamples: int = 10_000,
    level: float = 0.95,
) -> Estimate:
    """What `treatment` gains over `reference`: loss(reference) - loss(treatment).

    Paired by seed and document; positive when the treatment predicts held-out text better. Only seeds that
    both arms have are used.

    Args:
        treatment, reference: losses of the two arms on the same documents.
        seed, resamples, level: as in `arm_loss`.

    Raises:
        ValueError: the arms have other documents or no seed in common.
    """
    seeds = _common_seeds(treatment, reference)
    values = _gains(treatment, reference, seeds)[:, None, :]
    return _estimate(_moments(values, reference, seeds, seed, resamples), level, test_zero=True)


def oracle_share(
    arm: HeldOutLosses,
    baseline: HeldOutLosses,
    oracle: HeldOutLosses,
    seed: int,
    *,
    resamples: int = 10_000,
    level: float = 0.95,
) -> Share:
    """The share (baseline - arm) / (baseline - oracle) of the oracle's gain, as a Fieller set.

    A ratio has a bounded interval only when its denominator differs from zero at the same level; without one
    the estimate is withheld too. The smaller Satterthwaite degrees of freedom of numerator and denominator
    serve both.

    Args:
        arm, baseline, oracle: losses of the arms on the same documents.
        seed, resamples, level: as in `arm_loss`.

    Raises:
        ValueError: the arms have other documents or no seed in common.
    """
    seeds = _common_seeds(arm, baseline, oracle)
    values = np.stack([_gains(arm, baseline, seeds), _gains(oracle, baseline, seeds)], axis=1)
    moments = _moments(values, baseline, seeds, seed, resamples)
    freedom = min(moments.degrees_of_freedom(0), moments.degrees_of_freedom(1))
    gain, oracle_gain = float(moments.mean[0]), float(moments.mean[1])
    kind, low, high = fieller_set(gain, oracle_gain, moments.covariance, _critical(level, freedom))
    about: dict[str, Any] = {
        "level": level,
        "degrees_of_freedom": freedom,
        "seeds": seeds,
        "clusters": moments.clusters,
        "label": moments.label,
    }
    if kind == "interval" and oracle_gain < 0:
        return Share("no gain", None, None, None, **about)
    return Share(kind, gain / oracle_gain if kind == "interval" else None, low, high, **about)


def fieller_set(
    numerator: float, denominator: float, covariance: np.ndarray, critical: float
) -> tuple[Literal["interval", "complement", "line"], float | None, float | None]:
    """All ratios r for which numerator - r * denominator does not differ from 0.

    These are the r with (numerator - r * denominator)^2 <= critical^2 * (v11 - 2 r v12 + r^2 v22): a
    quadratic inequality whose solution is an interval, the complement of one, or every number (Fieller, "Some
    problems in interval estimation", Journal of the Royal Statistical Society B 16, 1954).

    Args:
        numerator, denominator: the two estimates.
        covariance: float64 [2, 2], of the two estimates.
        critical: quantile of the t distribution.

    Returns:
        The kind, and its two bounds: of the interval, or of the gap for "complement"; None for "line".
    """
    square = critical * critical
    a = denominator * denominator - square * float(covariance[1, 1])
    b = numerator * denominator - square * float(covariance[0, 1])
    c = numerator * numerator - square * float(covariance[0, 0])
    discriminant = b * b - a * c
    # a = 0 bounds the set on one side at most; "line" contains it. For a > 0 the estimate itself lies in the
    # set, so a negative discriminant is rounding there.
    if a == 0.0 or (a < 0.0 and discriminant <= 0.0):
        return "line", None, None
    # Of the two roots of a r^2 - 2 b r + c, the one with cancellation is taken from the product of the roots.
    q = b + np.copysign(np.sqrt(max(discriminant, 0.0)), b)
    roots = (q / a, c / q) if q != 0.0 else (0.0, 0.0)
    return ("interval" if a > 0.0 else "complement"), float(min(roots)), float(max(roots))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """P-values adjusted for the number of hypotheses, in the order given.

    Step-down procedure of Holm ("A simple sequentially rejective multiple test procedure", Scandinavian
    Journal of Statistics 6, 1979): a hypothesis is rejected at a level when its adjusted value is at most
    that level.
    """
    adjusted: dict[str, float] = {}
    largest = 0.0
    for position, (name, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        largest = max(largest, min(1.0, (len(p_values) - position) * p))
        adjusted[name] = largest
    return {name: adjusted[name] for name in p_values}


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


def _common_seeds(*arms: HeldOutLosses) -> tuple[int, ...]:
    first = arms[0]
    for other in arms[1:]:
        if not (np.array_equal(first.units, other.units) and np.array_equal(first.clusters, other.clusters)):
            raise ValueError(
                "the arms were not measured on the same test documents; evaluate them again on one split"
            )
    seeds = tuple(sorted(set.intersection(*(set(arm.nats) for arm in arms))))
    if not seeds:
        raise ValueError(f"no seed is common to all arms: {[sorted(arm.nats) for arm in arms]}")
    return seeds


def _gains(treatment: HeldOutLosses, reference: HeldOutLosses, seeds: Sequence[int]) -> np.ndarray:
    """float64 [S, documents]: nats that the treatment saves on each document."""
    return np.stack([reference.nats[seed] - treatment.nats[seed] for seed in seeds])


def _moments(
    values: np.ndarray, arm: HeldOutLosses, seeds: tuple[int, ...], seed: int, resamples: int
) -> _Moments:
    """`values` is float64 [S, m, documents]; `arm` gives units and clusters."""
    labels, index = np.unique(arm.clusters, return_inverse=True)
    count = labels.size
    units = np.bincount(index, weights=arm.units, minlength=count)
    per_seed = values.sum(axis=2) / units.sum()
    average = values.mean(axis=0)
    sums = np.stack([np.bincount(index, weights=row, minlength=count) for row in average])
    seed_covariance = np.atleast_2d(np.cov(per_seed.T, ddof=1)) / len(seeds) if len(seeds) > 1 else None
    document_covariance = bootstrap_covariance(sums, units, seed, resamples=resamples)
    return _Moments(per_seed.mean(axis=0), seed_covariance, document_covariance, seeds, count)


def _critical(level: float, degrees_of_freedom: float) -> float:
    return float(stats.t.ppf(0.5 + level / 2, degrees_of_freedom))


def _estimate(moments: _Moments, level: float, *, test_zero: bool) -> Estimate:
    estimate = float(moments.mean[0])
    error = float(np.sqrt(moments.covariance[0, 0]))
    freedom = moments.degrees_of_freedom(0)
    margin = _critical(level, freedom) * error
    p = None
    if test_zero:
        # Without any variance (two copies of one arm) the difference is known exactly.
        p = float(2 * stats.t.sf(abs(estimate) / error, freedom)) if error > 0 else float(estimate == 0)
    seed_covariance = moments.seed_covariance
    return Estimate(
        estimate=estimate,
        low=estimate - margin,
        high=estimate + margin,
        level=level,
        p=p,
        standard_error=error,
        seed_error=None if seed_covariance is None else float(np.sqrt(seed_covariance[0, 0])),
        document_error=float(np.sqrt(moments.document_covariance[0, 0])),
        degrees_of_freedom=freedom,
        seeds=moments.seeds,
        clusters=moments.clusters,
        label=moments.label,
    )
