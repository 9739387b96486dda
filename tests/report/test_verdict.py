"""The verdict says which way the run went, and how far it speaks."""

import pytest
from fixture import contrast, fake_results

from megasbp.report.schema import OracleShare, check_results
from megasbp.report.verdict import share_sentence, verdict


def verdict_of(**changes):
    return verdict(check_results(fake_results(**changes)))


def test_a_significant_gain_is_a_win_with_its_interval():
    found = verdict_of()
    assert found.outcome == "won"
    assert found.headline == (
        "SBP beat the baseline: it saves 0.0073 nats per byte of held-out text "
        "(95% interval +0.0027 to +0.0119; p = 0.011, corrected = 0.022; over 3 seeds)."
    )


def test_a_loss_is_said_plainly():
    found = verdict_of(gain=-0.02, half=0.005, p=0.001)
    assert found.outcome == "lost"
    assert found.headline.startswith("SBP did not beat the baseline: it is worse by 0.0200 nats per byte")


def test_an_interval_across_zero_is_no_win():
    found = verdict_of(gain=0.002, half=0.005, p=0.4)
    assert found.outcome == "undecided"
    assert found.headline.startswith("SBP did not beat the baseline")


def test_a_gain_that_fails_the_correction_is_no_win():
    # The interval excludes zero, but twice 0.04 is above 0.05.
    found = verdict_of(gain=0.0073, half=0.007, p=0.04)
    assert found.outcome == "undecided"
    assert "the correction for several hypotheses leaves it open" in found.headline


def test_one_seed_is_conditional_on_this_run():
    found = verdict_of(seeds=1)
    assert "conditional on this run" in found.headline
    assert found.details[-1].startswith("Conditional on this run: with one seed")
    assert not any(detail.startswith("Conditional") for detail in verdict_of(seeds=3).details)


def test_a_run_without_the_arms_claims_nothing():
    found = verdict(check_results(fake_results() | {"contrasts": {}}))
    assert found.outcome == "unmeasured"
    assert found.headline == "This run did not compare SBP with the baseline."


@pytest.mark.parametrize(
    ("estimate", "words"),
    [
        (0.01, "the relation between documents helps"),
        (0.001, "does not show that"),
        (-0.01, "SBP is worse than"),
    ],
)
def test_the_control_is_read_in_words(estimate, words):
    results = fake_results()
    results["contrasts"]["H3 sbp vs random_pairs"] = contrast("sbp", "random_pairs", estimate, 0.004, 0.01, 3)
    assert words in verdict(check_results(results)).details[0]


@pytest.mark.parametrize(
    ("estimate", "words"),
    [
        (0.01, "SBP gains +0.0100 nats per byte"),
        (0.001, "does not show that SBP is more than self-distillation"),
        (-0.01, "SBP is worse than the control that wrote without seed documents"),
    ],
)
def test_self_samples_are_read_in_words_where_there_are_any(estimate, words):
    results = fake_results()
    assert not any("without seed documents" in detail for detail in verdict(check_results(results)).details)
    results["contrasts"]["H2 sbp vs self_samples"] = contrast("sbp", "self_samples", estimate, 0.004, 0.01, 3)
    assert words in verdict(check_results(results)).details[0]


@pytest.mark.parametrize(
    ("kind", "low", "high", "words"),
    [
        ("complement", -0.4, 1.7, "unbounded (only shares between −40% and 170% are excluded)"),
        ("line", None, None, "unbounded (every value fits the data)"),
        ("no gain", None, None, "worse than the baseline here"),
    ],
)
def test_no_share_is_quoted_where_there_is_none(kind, low, high, words):
    found = OracleShare(kind=kind, estimate=None, low=low, high=high)
    assert words in share_sentence(found)
    assert "reaches" not in share_sentence(found)
