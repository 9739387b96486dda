"""The share of the oracle's gain that another arm reaches, as a Fieller set."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from megasbp.experiment.statistics.intervals import moments
from megasbp.experiment.statistics.losses import HeldOutLosses, common_seeds, gains

SetKind = Literal["interval", "complement", "line"]


@dataclass(frozen=True)
class Share:
    """The share of the oracle's gain that another arm reaches: a Fieller set.

    Attributes:
        kind: "interval": the set is [low, high]; "complement": it is everything up to `low` and everything
            from `high` on; "line": it is every number; "no gain": the oracle is significantly *worse* than
            the baseline, so there is no gain to take a share of.
        estimate: the ratio; None (withheld) unless `kind` is "interval".
        low, high: see `kind`; None for "line" and "no gain".
        level, seeds, clusters, label: as in `Estimate`.
    """

    kind: Literal["interval", "complement", "line", "no gain"]
    estimate: float | None
    low: float | None
    high: float | None
    level: float
    seeds: tuple[int, ...]
    clusters: int
    label: str


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
    the estimate is withheld too.

    Args:
        arm, baseline, oracle: losses of the arms on the same documents.
        seed, resamples, level: as in `arm_loss`.

    Raises:
        ValueError: the arms have other documents or no seed in common.
    """
    seeds = common_seeds(arm, baseline, oracle)
    values = np.stack([gains(arm, baseline, seeds), gains(oracle, baseline, seeds)], axis=1)
    found = moments(values, baseline, seeds, seed, resamples)
    gain, oracle_gain = float(found.mean[0]), float(found.mean[1])
    kind, low, high = fieller_set(gain, oracle_gain, found.squared_widths(level))
    about: dict[str, Any] = {
        "level": level,
        "seeds": seeds,
        "clusters": found.clusters,
        "label": found.label,
    }
    if kind == "interval" and oracle_gain < 0:
        return Share("no gain", None, None, None, **about)
    return Share(kind, gain / oracle_gain if kind == "interval" else None, low, high, **about)


def fieller_set(
    numerator: float, denominator: float, squared_widths: np.ndarray
) -> tuple[SetKind, float | None, float | None]:
    """All ratios r for which numerator - r * denominator does not differ from 0.

    These are the r with (numerator - r * denominator)^2 <= w11 - 2 r w12 + r^2 w22, the squared half width of
    that difference: a quadratic inequality whose solution is an interval, the complement of one, or every
    number (Fieller, "Some problems in interval estimation", Journal of the Royal Statistical Society B 16,
    1954).

    Args:
        numerator, denominator: the two estimates.
        squared_widths: float64 [2, 2], of the two estimates (`Moments.squared_widths`).

    Returns:
        The kind, and its two bounds: of the interval, or of the gap for "complement"; None for "line".
    """
    a = denominator * denominator - float(squared_widths[1, 1])
    b = numerator * denominator - float(squared_widths[0, 1])
    c = numerator * numerator - float(squared_widths[0, 0])
    discriminant = b * b - a * c
    # a = 0 bounds the set on one side at most; "line" contains it. For a > 0 the estimate itself lies in the
    # set, so a negative discriminant is rounding there.
    if a == 0.0 or (a < 0.0 and discriminant <= 0.0):
        return "line", None, None
    # Of the two roots of a r^2 - 2 b r + c, the one with cancellation is taken from the product of the roots.
    q = b + np.copysign(np.sqrt(max(discriminant, 0.0)), b)
    roots = (q / a, c / q) if q != 0.0 else (0.0, 0.0)
    return ("interval" if a > 0.0 else "complement"), float(min(roots)), float(max(roots))
