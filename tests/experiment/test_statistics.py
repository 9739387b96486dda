"""Intervals of held-out losses: hand-computed cases, coverage, determinism, Fieller sets."""

import math
import time
from dataclasses import asdict

import numpy as np
import pytest
from scipy import stats

from megasbp.errors import InputError
from megasbp.experiment.statistics.bootstrap import bootstrap_covariance
from megasbp.experiment.statistics.intervals import (
    CONDITIONAL,
    Moments,
    arm_loss,
    contrast,
    detectable_gain,
)
from megasbp.experiment.statistics.losses import HeldOutLosses, per_seed_losses
from megasbp.experiment.statistics.multiplicity import holm
from megasbp.experiment.statistics.shares import fieller_set, oracle_share


def losses(nats, units=None, clusters=None):
    """Losses of one arm from seed -> values; by default one byte a document, one document a cluster."""
    arrays = {seed: np.asarray(values, dtype=np.float64) for seed, values in nats.items()}
    count = next(iter(arrays.values())).size
    units = np.ones(count, dtype=np.int64) if units is None else np.asarray(units, dtype=np.int64)
    clusters = np.arange(count) if clusters is None else np.asarray(clusters)
    return HeldOutLosses(arrays, units, clusters)


def test_loss_is_sum_of_nats_over_sum_of_bytes():
    arm = losses({0: [10.0, 2.0], 1: [12.0, 2.0]}, units=[8, 2])
    result = arm_loss(arm, seed=1)
    assert per_seed_losses(arm) == {0: 1.2, 1: 1.4}
    assert result.estimate == pytest.approx(1.3)
    assert result.low < 1.3 < result.high


def test_contrast_is_positive_when_the_treatment_predicts_better():
    better, worse = losses({0: [1.0, 2.0, 3.0]}), losses({0: [2.0, 3.5, 4.0]})
    assert contrast(better, worse, seed=0).estimate == pytest.approx(3.5 / 3)
    assert contrast(worse, better, seed=0).estimate == pytest.approx(-3.5 / 3)


def test_one_seed_with_equal_documents_is_the_paired_t_test():
    generator = np.random.default_rng(0)
    reference, difference = generator.normal(5, 1, 60), generator.normal(0.2, 0.5, 60)
    result = contrast(losses({3: reference - difference}), losses({3: reference}), seed=0)
    expected = stats.ttest_1samp(difference, 0.0)
    interval = expected.confidence_interval(0.95)
    # 10,000 resamples give the standard error to about 0.7%; three times that of the half width is allowed.
    allowed = 0.022 * (interval.high - interval.low) / 2
    assert result.low == pytest.approx(interval.low, abs=allowed)
    assert result.high == pytest.approx(interval.high, abs=allowed)
    assert result.p == pytest.approx(expected.pvalue, rel=0.2)
    assert (result.label, result.seed_error, result.seeds) == (CONDITIONAL, None, (3,))


def test_without_document_variance_it_is_the_paired_t_test_over_seeds():
    # Every document gains alike within a seed.
    base = np.zeros(10)
    gains = {0: 1.0, 1: 2.0, 2: 6.0}
    result = contrast(
        losses({s: base - g for s, g in gains.items()}), losses(dict.fromkeys(gains, base)), seed=0
    )
    expected = stats.ttest_1samp(list(gains.values()), 0.0)
    interval = expected.confidence_interval(0.95)
    assert result.document_error == pytest.approx(0.0, abs=1e-12)
    assert (result.low, result.high) == pytest.approx((interval.low, interval.high))
    assert result.p == pytest.approx(expected.pvalue)
    assert result.label == "over 3 seeds"


def test_each_variance_keeps_the_t_quantile_of_its_own_sample():
    generator = np.random.default_rng(1)
    shared = generator.normal(0, 1, 30)
    treatment = losses({seed: -shared - offset for seed, offset in enumerate((0.0, 0.3, 0.5))})
    result = contrast(treatment, losses(dict.fromkeys(range(3), np.zeros(30))), seed=0)
    over_seeds = stats.t.ppf(0.975, 2) * result.seed_error
    over_documents = stats.t.ppf(0.975, 29) * result.document_error
    assert result.seed_error == pytest.approx(np.std([0.0, 0.3, 0.5], ddof=1) / math.sqrt(3))
    assert result.standard_error == pytest.approx(math.hypot(result.seed_error, result.document_error))
    assert result.high - result.estimate == pytest.approx(math.hypot(over_seeds, over_documents))


@pytest.mark.parametrize("seeds", [1, 2, 5])
@pytest.mark.parametrize("shift", [0.0, 0.2, 0.6])
def test_the_interval_at_one_minus_p_ends_at_zero(seeds, shift):
    generator = np.random.default_rng(seeds)
    gains = {seed: shift + generator.normal(0, 0.2) + generator.normal(0, 1, 50) for seed in range(seeds)}
    arms = losses({seed: -gain for seed, gain in gains.items()}), losses(dict.fromkeys(gains, np.zeros(50)))
    p = contrast(*arms, seed=0, resamples=500).p
    touching = contrast(*arms, seed=0, resamples=500, level=1 - p)
    nearest = min(abs(touching.low), abs(touching.high))
    assert nearest == pytest.approx(0.0, abs=1e-9 * (touching.high - touching.low) + 1e-12)


def test_an_overwhelming_difference_has_a_finite_smallest_p():
    noise = 1e-12 * np.random.default_rng(0).normal(size=300)
    result = contrast(losses({0: noise}), losses({0: noise * 0 + 1.0}), seed=0)
    assert 0 < result.p < 1e-100


def test_copies_of_a_document_add_no_certainty_when_they_share_a_cluster():
    gains = np.random.default_rng(2).normal(0.1, 1, 25)
    single = contrast(losses({0: -gains}), losses({0: 0 * gains}), seed=0)
    copied = np.repeat(gains, 8)
    clusters = np.repeat(np.arange(25), 8)
    arms = losses({0: -copied}, clusters=clusters), losses({0: 0 * copied}, clusters=clusters)
    assert contrast(*arms, seed=0).low == pytest.approx(single.low)
    assert contrast(*arms, seed=0).clusters == 25


def test_only_common_seeds_are_paired():
    treatment, reference = losses({0: [1.0, 1.0], 1: [9.0, 9.0]}), losses({0: [2.0, 2.0], 2: [0.0, 0.0]})
    result = contrast(treatment, reference, seed=0)
    assert (result.seeds, result.estimate) == ((0,), 1.0)


def test_an_arm_against_itself_gains_nothing_for_certain():
    arm = losses({0: [1.0, 2.0], 1: [1.5, 2.5]})
    result = contrast(arm, arm, seed=0)
    assert (result.estimate, result.low, result.high, result.p) == (0.0, 0.0, 0.0, 1.0)


def test_equal_calls_give_equal_results_and_other_seeds_other_resamples():
    generator = np.random.default_rng(3)
    a, b = (losses({0: generator.normal(size=40), 1: generator.normal(size=40)}) for _ in range(2))
    assert asdict(contrast(a, b, seed=5)) == asdict(contrast(a, b, seed=5))
    assert contrast(a, b, seed=5).low != contrast(a, b, seed=6).low


def test_chunks_of_the_bootstrap_do_not_repeat_draws(monkeypatch):
    sums, units = np.random.default_rng(4).normal(size=(1, 50)), np.ones(50)
    whole = bootstrap_covariance(sums, units, 0, resamples=2000)
    monkeypatch.setattr("megasbp.experiment.statistics.bootstrap._CHUNK_ELEMENTS", 50 * 7)
    assert bootstrap_covariance(sums, units, 0, resamples=2000) == pytest.approx(whole, rel=1e-12)


def test_ten_thousand_resamples_of_two_thousand_documents_are_quick():
    values = np.random.default_rng(5).normal(size=2000)
    started = time.process_time()
    contrast(losses({0: values}), losses({0: 0 * values}), seed=0)
    # Processor time, 0.5 s when measured; the bound leaves room for a busy or slow machine.
    assert time.process_time() - started < 2.0


def test_fieller_set_agrees_with_testing_every_ratio():
    generator = np.random.default_rng(6)
    kinds = set()
    ratios = np.linspace(-30, 30, 60_001)
    for _ in range(300):
        factor = generator.normal(size=(2, 2))
        squared_widths = factor @ factor.T * 0.9
        numerator, denominator = generator.normal(0, 1.2, 2)
        kind, low, high = fieller_set(numerator, denominator, squared_widths)
        kinds.add(kind)
        cross, square = squared_widths[0, 1], squared_widths[1, 1]
        width = np.sqrt(squared_widths[0, 0] - 2 * ratios * cross + ratios**2 * square)
        accepted = np.abs(numerator - ratios * denominator) <= width
        if kind == "interval":
            claimed = (ratios >= low) & (ratios <= high)
        elif kind == "complement":
            claimed = (ratios <= low) | (ratios >= high)
        else:
            claimed = np.ones_like(accepted)
        # Only a ratio on the very bound may fall on the other side by rounding.
        assert np.count_nonzero(accepted != claimed) <= 1
    assert kinds == {"interval", "complement", "line"}


def test_fieller_set_of_exact_estimates_is_their_ratio():
    assert fieller_set(1.0, 4.0, np.zeros((2, 2))) == ("interval", 0.25, 0.25)
    assert fieller_set(0.0, 4.0, np.zeros((2, 2))) == ("interval", 0.0, 0.0)
    assert fieller_set(1.0, 0.0, np.zeros((2, 2))) == ("line", None, None)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_fieller_bounds_keep_their_digits_under_cancellation(sign):
    # a = 1, b = sign, c = 1e-10: the textbook formula leaves six digits of the bound near zero.
    squared_widths = np.array([[1 - 1e-10, 0.0], [0.0, 0.0]])
    c = 1.0 - squared_widths[0, 0]
    _, low, high = fieller_set(sign, 1.0, squared_widths)
    near = low if sign > 0 else high
    assert near == pytest.approx(sign * c / (1 + math.sqrt(1 - c)), rel=1e-12, abs=0)


def shares(gain, oracle_gain, noise):
    """Oracle share of arms with exactly these mean gains per document and independent noise on each."""
    generator = np.random.default_rng(7)
    base = generator.normal(5, 1, 200)
    # Centred, so that the sample means are exactly what is asked for.
    first, second = (values - values.mean() for values in noise * generator.normal(size=(2, 200)))
    arm, oracle = losses({0: base - gain - first}), losses({0: base - oracle_gain - second})
    return oracle_share(arm, losses({0: base}), oracle, seed=0)


def test_share_of_a_clear_oracle_gain_is_an_interval_around_the_ratio():
    share = shares(0.4, 1.0, 0.3)
    assert share.kind == "interval"
    assert share.low < share.estimate < share.high
    assert share.estimate == pytest.approx(0.4)


def test_share_is_withheld_when_the_oracles_gain_is_not_significant():
    # The arm's gain is clear, the oracle's is not: the ratio is far from 0 on an unknown side.
    share = shares(1.0, 0.01, 0.3)
    assert (share.kind, share.estimate) == ("complement", None)
    assert share.low < 0 < share.high
    nothing = shares(0.01, 0.01, 0.3)
    assert (nothing.kind, nothing.estimate, nothing.low, nothing.high) == ("line", None, None, None)


def test_share_is_void_when_the_oracle_is_worse_than_the_baseline():
    share = shares(0.4, -1.0, 0.3)
    assert (share.kind, share.estimate, share.low, share.high) == ("no gain", None, None, None)


def test_share_uses_the_covariance_of_both_gains():
    # Both gains share the baseline's noise, so their ratio is far more certain than either of them.
    generator = np.random.default_rng(8)
    noise = generator.normal(0, 1, 100)
    base = 5 + noise
    small = 0.01 * generator.normal(size=100)
    arms = losses({0: 5 - 1.0 + small}), losses({0: base}), losses({0: 5 - 1.0 - small})
    share = oracle_share(*arms, seed=0)
    assert share.kind == "interval"
    assert share.high - share.low < 0.02
    gain = contrast(arms[0], arms[1], seed=0)
    assert gain.high - gain.low > 0.3


@pytest.mark.parametrize("seeds", [1, 5])
def test_the_detectable_gain_is_the_half_width_and_what_the_estimate_may_fall_short_by(seeds):
    generator = np.random.default_rng(2)
    treatment = losses({seed: generator.normal(0, 1, 40) for seed in range(seeds)})
    result = contrast(treatment, losses(dict.fromkeys(range(seeds), np.zeros(40))), seed=0)

    def width(quantile):
        over_seeds = 0.0 if seeds == 1 else stats.t.ppf(quantile, seeds - 1) * result.seed_error
        return math.hypot(over_seeds, stats.t.ppf(quantile, 39) * result.document_error)

    assert result.detectable == pytest.approx(width(0.975) + width(0.8))
    assert arm_loss(treatment, seed=0).detectable is None


@pytest.mark.parametrize(("seeds", "power"), [(2, 0.73), (3, 0.76), (5, 0.79), (20, 0.80)])
def test_a_detectable_gain_is_found_about_four_times_in_five(seeds, power):
    # Where the seeds dominate, the estimate over its error is noncentral t; few seeds fall short as said.
    known = Moments(np.zeros(1), np.eye(1), 1e-12 * np.eye(1), tuple(range(seeds)), 500)
    found = stats.nct.sf(stats.t.ppf(0.975, seeds - 1), seeds - 1, detectable_gain(known, 0.95))
    assert found == pytest.approx(power, abs=0.01)


def test_holm_by_hand():
    assert holm({"a": 0.04, "b": 0.01, "c": 0.03}) == pytest.approx({"a": 0.06, "b": 0.03, "c": 0.06})
    assert holm({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0}
    assert list(holm({"z": 0.2, "a": 0.1})) == ["z", "a"]
    assert holm({}) == {}


def test_a_diverged_run_is_named_with_its_seed():
    with pytest.raises(InputError, match=r"seed 4: the loss of 1 of 2 test documents is not finite"):
        losses({4: [1.0, float("nan")]})


def test_one_cluster_is_refused():
    with pytest.raises(InputError, match="1 cluster"):
        losses({0: [1.0, 2.0]}, clusters=[7, 7])


@pytest.mark.parametrize(
    "arguments",
    [
        {"nats": {0: [1.0, 2.0]}, "units": [1]},
        {"nats": {0: [1.0, 2.0], 1: [1.0]}},
        {"nats": {0: [1.0, 2.0]}, "units": [1, 0]},
    ],
)
def test_arrays_that_do_not_fit_are_refused(arguments):
    with pytest.raises(ValueError, match=r"must|at least 1"):
        losses(**arguments)


def test_arms_on_other_documents_are_refused():
    with pytest.raises(ValueError, match="same test documents"):
        contrast(losses({0: [1.0, 2.0]}, units=[1, 2]), losses({0: [1.0, 2.0]}, units=[2, 1]), seed=0)
    with pytest.raises(ValueError, match="no seed is common"):
        contrast(losses({0: [1.0, 2.0]}), losses({1: [1.0, 2.0]}), seed=0)
