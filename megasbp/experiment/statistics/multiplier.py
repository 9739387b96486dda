"""The data-efficiency multiplier: how many times the unique text a plain baseline would need."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from megasbp.experiment.statistics.intervals import moments
from megasbp.experiment.statistics.losses import HeldOutLosses, common_seeds, gains
from megasbp.experiment.statistics.shares import fieller_set

# From the two losses at a segment's ends to the loss at its beginning and the fall along it.
_START_AND_FALL = np.array([[1.0, 0.0], [1.0, -1.0]])


@dataclass(frozen=True)
class Multiplier:
    """How many times the unique text the baseline needs for another arm's loss.

    Attributes:
        kind: "within" what was measured; "below": the arm is worse than the baseline at its smallest text;
            "above": it is better than the one at its largest.
        estimate: the multiplier; None unless `kind` is "within".
        low, high: bounds of the interval; None where it reaches out of what was measured.
        smallest, largest: ends of what was measured.
        level, seeds, clusters, label: as in `intervals.Estimate`.
    """

    kind: Literal["below", "within", "above"]
    estimate: float | None
    low: float | None
    high: float | None
    smallest: float
    largest: float
    level: float
    seeds: tuple[int, ...]
    clusters: int
    label: str


def data_efficiency(
    arm: HeldOutLosses,
    baselines: Mapping[float, HeldOutLosses],
    seed: int,
    *,
    resamples: int = 10_000,
    level: float = 0.95,
) -> Multiplier:
    """Where an arm's loss lies among those of baselines trained on more unique text, at one training budget.

    Between two of them the baseline's loss is linear in the logarithm of its unique tokens. The estimate is
    the smallest multiplier at which the baseline is as good as the arm. The interval holds every multiplier
    whose interpolated baseline does not differ from the arm, by the interval of that contrast: it has a lower
    bound exactly when the arm's own gain over the baseline is significant. If the losses do not fall with
    the text, such multipliers need not be neighbours; the interval spans them all.

    Args:
        arm: its losses.
        baselines: unique tokens, as a multiple of the arm's, -> losses of the baseline trained on them.
        seed, resamples, level: as in `intervals.arm_loss`.

    Raises:
        ValueError: fewer than two baselines, other documents, or no seed in common.
    """
    sizes = sorted(baselines)
    if len(sizes) < 2:
        raise ValueError(f"baselines has {len(sizes)} size(s) of text; a multiplier needs at least 2")
    ordered = [baselines[size] for size in sizes]
    seeds = common_seeds(arm, *ordered)
    values = np.stack([gains(arm, baseline, seeds) for baseline in ordered], axis=1)
    found = moments(values, arm, seeds, seed, resamples)
    # The arm's gain over each baseline: positive where the arm is better.
    gain, widths = found.mean, found.squared_widths(level)
    places = [
        part + place
        for part in range(len(sizes) - 1)
        for place in _undecided(gain[part : part + 2], widths[part : part + 2, part : part + 2])
    ]
    about: dict[str, Any] = {
        "smallest": float(sizes[0]),
        "largest": float(sizes[-1]),
        "level": level,
        "seeds": seeds,
        "clusters": found.clusters,
        "label": found.label,
    }
    last = float(len(sizes) - 1)
    kind: Literal["below", "within", "above"] = "within"
    crossing = _crossing(gain)
    nearest = crossing
    if nearest is None:
        kind, nearest = ("below", 0.0) if gain[0] < 0 else ("above", last)
    # An arm that surely is beyond all baselines has no such place: its interval begins where theirs end.
    places = places or [nearest]
    low, high = min(places), max(places)
    reaches_below = (low == 0.0 and gain[0] ** 2 <= widths[0, 0]) or kind == "below"
    reaches_above = (high == last and gain[-1] ** 2 <= widths[-1, -1]) or kind == "above"
    return Multiplier(
        kind,
        None if crossing is None else _size(sizes, crossing),
        None if reaches_below else _size(sizes, low),
        None if reaches_above else _size(sizes, high),
        **about,
    )


def _crossing(gain: np.ndarray) -> float | None:
    """Where the interpolated gain falls to 0 first, counted in segments; None if it is nowhere so."""
    if gain[0] < 0:
        return None
    for part, (start, end) in enumerate(pairwise(gain.tolist())):
        if end <= 0:
            return part + (start / (start - end) if start > end else 0.0)
    return None


def _undecided(gain: np.ndarray, widths: np.ndarray) -> list[float]:
    """Ends of the places of one segment, 0 to 1, at which the interpolated gain does not differ from 0."""
    start_and_fall = _START_AND_FALL @ gain
    squared = _START_AND_FALL @ widths @ _START_AND_FALL.T
    kind, low, high = fieller_set(float(start_and_fall[0]), float(start_and_fall[1]), squared)
    pieces = [(0.0, 1.0)]
    if low is not None and high is not None:
        pieces = [(low, high)] if kind == "interval" else [(0.0, low), (high, 1.0)]
    clipped = [(max(first, 0.0), min(last, 1.0)) for first, last in pieces]
    return [place for first, last in clipped if first <= last for place in (first, last)]


def _size(sizes: list[float], place: float) -> float:
    """The multiple of the text at a place counted in segments; linear in its logarithm."""
    return float(np.exp(np.interp(place, np.arange(len(sizes)), np.log(sizes))))
