"""Declared contrasts: what is compared follows from the arms, and only the secondary family is corrected."""

import numpy as np
import pytest

from megasbp.experiment.comparisons import compare, data_efficiency_of_sbp, declared, share_of_oracle
from megasbp.experiment.statistics.losses import HeldOutLosses

DOCUMENTS = 60


def losses(gains: dict[str, float]) -> dict[str, HeldOutLosses]:
    """Arms with these mean gains over the baseline, two seeds each."""
    generator = np.random.default_rng(0)
    base = generator.normal(5, 1, DOCUMENTS)
    units, clusters = np.ones(DOCUMENTS, np.int64), np.arange(DOCUMENTS)
    return {
        arm: HeldOutLosses(
            {seed: base - gain + generator.normal(0, 0.3, DOCUMENTS) for seed in (0, 1)}, units, clusters
        )
        for arm, gain in {"baseline": 0.0, **gains}.items()
    }


def test_a_hypothesis_about_an_absent_arm_is_left_out_and_every_other_arm_is_described() -> None:
    names = [(one.name, one.role) for one in declared(["baseline", "sbp", "random_pairs", "oracle"])]
    assert names == [
        ("H1 sbp vs baseline", "primary"),
        ("H3 sbp vs random_pairs", "secondary"),
        ("random_pairs vs baseline", "descriptive"),
        ("oracle vs baseline", "descriptive"),
    ]
    assert declared(["baseline"]) == []
    assert [one.name for one in declared(["baseline", "new"])] == ["new vs baseline"]


def test_holm_corrects_the_secondary_hypotheses_and_nothing_else() -> None:
    found = compare(losses({"sbp": 0.3, "self_samples": 0.25, "random_pairs": 0.1}), seed=0, resamples=500)
    second, third = (found[name] for name in ("H2 sbp vs self_samples", "H3 sbp vs random_pairs"))
    smaller, larger = sorted([second["p"], third["p"]])
    by_hand = {smaller: min(1.0, 2 * smaller), larger: min(1.0, max(2 * smaller, larger))}
    assert second["p_holm"] == pytest.approx(by_hand[second["p"]])
    assert third["p_holm"] == pytest.approx(by_hand[third["p"]])
    assert found["H1 sbp vs baseline"]["p_holm"] is None
    assert found["random_pairs vs baseline"]["p"] is None


def test_the_p_of_a_hypothesis_agrees_with_its_interval() -> None:
    for gain in (0.0, 0.05, 0.15, 0.5):
        first = compare(losses({"sbp": gain}), seed=0, resamples=500)["H1 sbp vs baseline"]
        assert (first["p"] < 0.05) == (first["low"] > 0 or first["high"] < 0)


def test_a_share_needs_both_arms() -> None:
    assert share_of_oracle(losses({"sbp": 0.3}), seed=0, resamples=500) is None
    found = share_of_oracle(losses({"sbp": 0.3, "oracle": 1.0}), seed=0, resamples=500)
    assert found is not None
    assert set(found) == {"kind", "estimate", "low", "high", "level", "seeds", "clusters", "label"}


def test_a_multiplier_needs_a_baseline_on_more_text() -> None:
    arms = losses({"sbp": 0.3, "baseline_x2": 0.2, "baseline_x4": 0.5})
    tokens = {"baseline": 1000, "baseline_x2": 2000, "baseline_x4": 4000}
    found = data_efficiency_of_sbp(arms, tokens, seed=0, resamples=500)
    assert found is not None
    assert found["kind"] == "within" and 2 < found["estimate"] < 4
    assert [point["multiple"] for point in found["points"]] == [1, 2, 4]
    assert data_efficiency_of_sbp(arms, {"baseline": 1000}, seed=0, resamples=500) is None
