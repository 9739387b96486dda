"""What a pair is worth over several seeds, against numbers worked out by hand."""

import math
from typing import Any

import pytest
from scipy import stats

from megasbp.experiment.pair_value_results import pair_value_results
from megasbp.experiment.statistics.over_seeds import over_seeds

# Half the width of a 95% interval of an estimate with standard error 1, as of a normal distribution.
Z = stats.norm.ppf(0.975)


def interval(estimate: float, error: float | None) -> dict[str, float | None]:
    """A seed's bootstrap interval with this standard error."""
    if error is None:
        return {"estimate": estimate, "low": None, "high": None}
    return {"estimate": estimate, "low": estimate - Z * error, "high": estimate + Z * error}


def table(worth: float, error: float | None = 0.01, pairs: int = 100) -> dict[str, Any]:
    """Facts of a table whose other difference is twice as large."""
    contrasts = {"worth": interval(worth, error), "shuffled": interval(2 * worth, error)}
    bins = [{"low": 0.5, "high": 0.9, "pairs": pairs, "contrasts": {"worth": {"estimate": worth}}}]
    return {
        "pairs": pairs,
        "tokens": 10 * pairs,
        "clusters": 41,
        "level": 0.95,
        "losses": {"true": 4.0, "random": 4.0 + worth},
        "contrasts": contrasts,
        "by_similarity": bins,
    }


def test_the_interval_over_seeds_holds_the_seeds_and_the_documents() -> None:
    found = over_seeds({7: interval(0.02, 0.01), 3: interval(0.05, 0.03)}, clusters=41, level=0.95)
    assert found["estimate"] == pytest.approx(0.035)
    assert found["seed_error"] == pytest.approx(0.015)
    # The same documents: errors of the seeds do not average out.
    assert found["document_error"] == pytest.approx(0.02)
    assert found["standard_error"] == pytest.approx(0.025)
    half = math.hypot(stats.t.ppf(0.975, 1) * 0.015, stats.t.ppf(0.975, 40) * 0.02)
    assert (found["low"], found["high"]) == pytest.approx((0.035 - half, 0.035 + half))
    assert (found["seeds"], found["label"]) == ([3, 7], "over 2 seeds")


def test_one_seed_keeps_its_own_interval_which_is_conditional_on_the_run() -> None:
    found = over_seeds({0: {"estimate": 0.02, "low": 0.013, "high": 0.03}}, clusters=41, level=0.95)
    assert (found["estimate"], found["low"], found["high"]) == (0.02, 0.013, 0.03)
    assert (found["seed_error"], found["label"]) == (None, "conditional on this run")


def test_a_seed_without_an_interval_leaves_none() -> None:
    found = over_seeds({0: interval(0.02, 0.01), 1: interval(0.04, None)}, clusters=1, level=0.95)
    assert (found["estimate"], found["low"], found["high"]) == (pytest.approx(0.03), None, None)
    assert found["standard_error"] is None


def test_a_table_is_a_mean_over_the_seeds_that_have_it_and_keeps_each_ones() -> None:
    both = {"new_target": table(0.02, pairs=90), "new_seed_and_target": table(0.01)}
    found = pair_value_results({4: both, 2: {"new_target": table(0.04)}})["tables"]
    new = found["new target"]
    assert new["losses"] == pytest.approx({"true": 4.0, "random": 4.03})
    assert new["worth"]["estimate"] == pytest.approx(0.03)
    assert new["shuffled_gap"]["estimate"] == pytest.approx(0.06)
    assert {seed: one["worth"]["estimate"] for seed, one in new["seeds"].items()} == {"4": 0.02, "2": 0.04}
    assert (new["pairs"], new["tokens"]) == (90, 900)
    assert (new["bins_seed"], new["bins"][0]["pairs"]) == (4, 90)
    other = found["new seed and target"]
    assert other["worth"]["label"] == "conditional on this run"
    assert list(other["seeds"]) == ["4"]
