"""The verdict says which way the run went, and how far it speaks."""

import pytest
from fixture import contrast, fake_results

from megasbp.report.schema import OracleShare, check_results
from megasbp.report.terminal import terminal_table
from megasbp.report.verdict import share_sentence, verdict


def verdict_of(**changes):
    return verdict(check_results(fake_results(**changes)))


def test_a_significant_gain_is_a_win_with_its_interval():
    found = verdict_of()
    assert found.outcome == "won"
    assert found.headline == (
        "SBP beat the baseline: it saves 0.0073 nats per byte of held-out text "
        "(95% interval +0.0027 to +0.0119; p = 0.011; over 3 seeds)."
    )


def test_a_loss_is_said_plainly():
    found = verdict_of(gain=-0.02, half=0.005, p=0.001)
    assert found.outcome == "lost"
    assert found.headline.startswith("SBP did not beat the baseline: it is worse by 0.0200 nats per byte")


def test_an_interval_across_zero_is_no_win():
    found = verdict_of(gain=0.002, half=0.005, p=0.4)
    assert found.outcome == "undecided"
    assert found.headline.startswith("SBP did not beat the baseline")


def test_the_primary_hypothesis_is_tested_alone_and_the_others_as_a_family():
    # Both intervals exclude zero, but the secondary one's corrected p is above 0.05.
    results = fake_results(gain=0.0073, half=0.007, p=0.04)
    results["contrasts"]["H3 sbp vs random_pairs"] = contrast("sbp", "random_pairs", 0.008, 0.007, 0.03, 3)
    found = verdict(check_results(results))
    assert found.outcome == "won"
    (control,) = [detail for detail in found.details if "random pairs" in detail]
    assert "p = 0.030, corrected = 0.060" in control
    assert "does not show that the relation between documents matters" in control


def test_the_gain_over_self_samples_says_whether_it_is_more_than_self_distillation():
    results = fake_results()
    results["contrasts"]["H2"] = contrast("sbp", "self_samples", 0.01, 0.004, 0.01, 3)
    found = verdict(check_results(results))
    assert "SBP gains +0.0100 nats per byte" in found.details[0]
    assert found.details[0].endswith(": SBP is more than self-distillation.")


def test_one_seed_is_conditional_on_this_run():
    found = verdict_of(seeds=1)
    assert "conditional on this run" in found.headline
    assert found.details[-1].startswith("Conditional on this run: with one seed")
    assert not any(detail.startswith("Conditional") for detail in verdict_of(seeds=3).details)


def test_a_seed_that_is_left_out_is_said_with_its_reason_also_where_nothing_was_compared():
    finding = "the validation loss is not finite at step 40, at learning rate 0.03"
    left_out = {"1": [{"stage": "seed-1/train-sbp", "finding": finding}]}
    words = f"Left out of every comparison, with all arms: seed 1 (seed-1/train-sbp diverged: {finding})."
    for contrasts in (fake_results()["contrasts"], {}):
        results = fake_results() | {"left_out": left_out, "contrasts": contrasts}
        assert words in verdict(check_results(results)).details
        assert words in terminal_table(results).replace("\n", " ")
    assert not any("Left out" in detail for detail in verdict_of().details)


def test_an_undecided_run_says_what_gain_it_would_find_and_what_it_leaves_possible():
    details = verdict_of(gain=0.001, half=0.004, p=0.6).details
    assert details[0] == (
        "The run would find a gain of 0.0060 nats per byte with 80% power; the interval leaves gains of up "
        "to +0.0050 possible."
    )
    assert not any("80% power" in detail for detail in verdict_of().details)


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


def test_one_seed_claims_no_relation():
    results = fake_results()
    results["contrasts"]["H3 sbp vs random_pairs"] = contrast("sbp", "random_pairs", 0.01, 0.004, 0.01, 1)
    said = verdict(check_results(results)).details[0]
    assert said.endswith("; whether the relation between documents matters, one seed cannot say.")


@pytest.mark.parametrize(
    ("estimate", "words"),
    [
        (0.01, "SBP gains +0.0100 nats per byte"),
        (0.001, "does not show that SBP is more than self-distillation"),
        (-0.01, "SBP is worse than the control trained on the model's own unconditional samples"),
    ],
)
def test_self_samples_are_read_in_words_where_there_are_any(estimate, words):
    results = fake_results()
    assert not any("unconditional" in detail for detail in verdict(check_results(results)).details)
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


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "SBP is worth 1.3x (1.1x to 1.6x): the baseline needs so much of it"),
        ({"kind": "above", "estimate": None, "low": 3.1, "high": None}, "> 4.0x (3.1x to > 4.0x)"),
        (
            {"kind": "below", "estimate": None, "low": None, "high": 1.2},
            "< 1.0x (< 1.0x to 1.2x): the baseline on that text alone is ahead",
        ),
    ],
)
def test_the_multiplier_never_speaks_beyond_what_was_measured(changes, words):
    results = fake_results()
    results["data_efficiency"] |= changes
    assert any(words in detail for detail in verdict(check_results(results)).details)
    assert "1.2x (1.0x to 1.5x)" in terminal_table(results)


def test_a_closed_gate_is_said_in_the_verdict_and_mended_in_the_table():
    results = fake_results()
    assert not any("gate was closed" in detail for detail in verdict(check_results(results)).details)
    results["gates"]["1"][2] |= {"open": False, "mend": "raise budget.tokens_per_arm"}
    assert any("a gate was closed (baseline)" in one for one in verdict(check_results(results)).details)
    line = next(line for line in terminal_table(results).splitlines() if "Baseline, seed 1" in line)
    assert "closed" in line
    assert "raise budget.tokens_per_arm" in line


def test_best_weights_are_named_only_where_they_disagree_with_the_end_of_the_budget():
    results = fake_results()
    assert not any("best weights" in detail for detail in verdict(check_results(results)).details)
    results["contrasts"]["H1 sbp vs baseline"]["best_validation"] |= {"estimate": -0.002, "low": -0.004}
    results["contrasts"]["H1 sbp vs baseline"]["best_validation"]["high"] = -0.001
    found = verdict(check_results(results))
    assert found.outcome == "won"
    assert found.details[0] == (
        "With the best weights on validation data SBP is behind: −0.0020 nats per byte "
        "(95% interval −0.0040 to −0.0010). The end of the budget decides."
    )


def test_the_third_view_has_both_readings_in_a_sentence_and_a_table():
    results = fake_results()
    assert "Third view" not in terminal_table(results)
    for reading, gain in (("owned", -0.001), ("counted", -0.004)):
        arm = f"baseline_flops_{reading}"
        results["arms"][arm] = {**results["arms"]["baseline"], "curve": []}
        results["contrasts"][f"sbp vs {arm}"] = contrast("sbp", arm, gain, 0.002, 0.3, 3, "descriptive")
    assert any(
        "SBP gains −0.0020 nats per byte (−0.0040 to +0.0000) with the initial model owned, "
        "−0.0050 nats per byte (−0.0070 to −0.0030) with the initial model counted." in detail
        for detail in verdict(check_results(results)).details
    )
    lines = terminal_table(results).splitlines()
    (line,) = [line for line in lines if line.startswith("counted ")]
    assert line.split()[1:4] == ["54.00", "TFLOP", "1.00x"]
    assert line.endswith("−0.0040 (−0.0060 to −0.0020)   −0.0050 (−0.0070 to −0.0030)")
