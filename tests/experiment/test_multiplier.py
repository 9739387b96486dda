"""The data-efficiency multiplier: by hand, censored at the ends, covered, in agreement with the contrasts."""

import numpy as np
import pytest

from megasbp.experiment.statistics.intervals import contrast
from megasbp.experiment.statistics.losses import HeldOutLosses
from megasbp.experiment.statistics.multiplier import data_efficiency

DOCUMENTS = 80


def arm(mean: float, noise: np.ndarray) -> HeldOutLosses:
    """Losses of exactly this mean; `noise` is [seeds, documents] around it."""
    nats = {seed: mean + row for seed, row in enumerate(noise)}
    documents = noise.shape[1]
    return HeldOutLosses(nats, np.ones(documents, np.int64), np.arange(documents))


def exact(deviation: float, seeds: int = 1, key: int = 0) -> np.ndarray:
    """Noise whose mean is 0 in each seed."""
    noise = deviation * np.random.default_rng(key).normal(size=(seeds, DOCUMENTS))
    return noise - noise.mean(axis=1, keepdims=True)


def multiplier(loss: float, deviation: float = 0.01, losses: tuple[float, ...] = (5.0, 4.6, 4.4)):
    """Of an arm at `loss` among baselines at 1, 2 and 4 times the text."""
    baselines = {
        size: arm(mean, exact(deviation, key=place))
        for place, (size, mean) in enumerate(zip((1.0, 2.0, 4.0), losses, strict=True))
    }
    return data_efficiency(arm(loss, exact(deviation, key=9)), baselines, seed=0, resamples=500)


@pytest.mark.parametrize(
    ("loss", "expected"),
    [(5.0 - 1e-9, 1.0), (4.8, 2**0.5), (4.6, 2.0), (4.5, 2 * 2**0.5), (4.4 + 1e-9, 4.0)],
)
def test_the_loss_is_interpolated_in_the_logarithm_of_the_text(loss: float, expected: float) -> None:
    found = multiplier(loss)
    assert (found.kind, found.estimate) == ("within", pytest.approx(expected))


def test_bounds_are_where_the_interpolated_baseline_differs_from_the_arm() -> None:
    deviation = 0.2
    found = multiplier(4.7, deviation)
    low, high = found.low, found.high
    assert low is not None and high is not None and found.estimate is not None
    assert low < found.estimate < high

    def baseline(size: float) -> HeldOutLosses:
        ends = [arm(5.0, exact(deviation, key=0)), arm(4.6, exact(deviation, key=1))]
        if size > 2:
            ends = [arm(4.6, exact(deviation, key=1)), arm(4.4, exact(deviation, key=2))]
        share = np.log2(size) - (size > 2)
        nats = {0: (1 - share) * ends[0].nats[0] + share * ends[1].nats[0]}
        return HeldOutLosses(nats, ends[0].units, ends[0].clusters)

    treatment = arm(4.7, exact(deviation, key=9))
    at_low = contrast(treatment, baseline(low), seed=0, resamples=500)
    at_high = contrast(treatment, baseline(high), seed=0, resamples=500)
    assert at_low.low == pytest.approx(0.0, abs=1e-9)
    assert at_high.high == pytest.approx(0.0, abs=1e-9)


def test_an_arm_better_than_the_most_text_is_above_it() -> None:
    found = multiplier(4.0)
    assert (found.kind, found.estimate, found.low, found.high) == ("above", None, pytest.approx(4.0), None)
    unsure = multiplier(4.39, deviation=0.2)
    assert (unsure.kind, unsure.high) == ("above", None)
    assert unsure.low is not None and 2 < unsure.low < 4


def test_an_arm_worse_than_the_baseline_is_below_one() -> None:
    found = multiplier(5.5)
    assert (found.kind, found.estimate, found.low, found.high) == ("below", None, None, pytest.approx(1.0))
    unsure = multiplier(5.01, deviation=0.2)
    assert (unsure.kind, unsure.low) == ("below", None)
    assert unsure.high is not None and 1 < unsure.high < 2


@pytest.mark.parametrize("loss", [5.02, 5.0, 4.98, 4.94, 4.9, 4.8])
def test_its_low_bound_exists_exactly_when_the_gain_over_the_baseline_is_significant(loss: float) -> None:
    found = multiplier(loss, deviation=0.2)
    gain = contrast(arm(loss, exact(0.2, key=9)), arm(5.0, exact(0.2, key=0)), seed=0, resamples=500)
    assert (found.low is not None) == (gain.low > 0)


def test_more_text_that_does_not_help_leaves_the_interval_open() -> None:
    found = multiplier(5.0, deviation=0.2, losses=(5.0, 5.0, 5.0))
    assert (found.low, found.high) == (None, None)


@pytest.mark.parametrize("seeds", [2, 5])
def test_the_interval_holds_the_true_multiplier_as_often_as_it_says(seeds: int) -> None:
    generator = np.random.default_rng(seeds)
    repetitions, hits = 400, 0
    for repetition in range(repetitions):
        documents = generator.normal(0, 0.3, DOCUMENTS)

        def sample(mean: float, documents: np.ndarray = documents) -> HeldOutLosses:
            runs = generator.normal(0, 0.04, (seeds, 1))
            own = generator.normal(0, 0.2, (1, DOCUMENTS))
            return arm(mean, runs + own + documents)

        baselines = {1.0: sample(5.0), 2.0: sample(4.6), 4.0: sample(4.4)}
        found = data_efficiency(sample(4.7), baselines, seed=repetition, resamples=200)
        truth = 2**0.75
        hits += (found.low or 0.0) <= truth <= (found.high or np.inf)
    # 3 binomial deviations of 400 at 95% are 3.3 points; the interval may err on the wide side only.
    assert hits / repetitions >= 0.917


def test_one_baseline_gives_no_multiplier() -> None:
    with pytest.raises(ValueError, match="needs at least 2"):
        data_efficiency(arm(4.0, exact(0.1)), {1.0: arm(5.0, exact(0.1))}, seed=0)
