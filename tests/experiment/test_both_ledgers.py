"""Both ledgers, against numbers worked out by hand: an arm pays for what it uses, and for nothing else."""

from pathlib import Path

import pytest

from megasbp.experiment.budget import ArmPlan
from megasbp.experiment.ledger import PairWork, Work, ledger
from megasbp.experiment.recipe import load_recipe
from megasbp.model.flops import flops_per_token

RECIPE = load_recipe(Path(__file__).resolve().parents[2] / "configs" / "demo.toml")
# Operations of a token, forward and backward, in rows of a training sequence and of the synthesizer.
SHORT = flops_per_token(RECIPE.model, 256, causal=True)
LONG = flops_per_token(RECIPE.model, 512, causal=True)
PAIRS = PairWork(embedded_tokens=1000, embedder_parameters=50, searched=3000, tuned_tokens=700)


def plan_of(arm: str) -> ArmPlan:
    return ArmPlan(arm, 300, {"unique": 1}, {"unique": 600, "synthetic": 200}, {"unique": 1.0})


def test_an_arm_of_real_text_pays_for_training_and_sweeps() -> None:
    found = ledger(RECIPE, plan_of("oracle"), None, sweep_tokens=90)
    assert found["matched_tokens"] == 800
    assert found["flops"] == {"final training": SHORT * 800, "sweeps": SHORT * 90}
    assert found["total_flops_owned"] == found["total_flops_counted"] == SHORT * 890


def test_an_arm_with_pairs_pays_for_all_that_led_to_its_text() -> None:
    work = Work(pretraining_tokens=800, context=512, prefill_tokens=30, generated_tokens=60, pairs=PAIRS)
    found = ledger(RECIPE, plan_of("sbp"), work, sweep_tokens=0)
    assert found["flops"] == {
        "final training": SHORT * 800,
        "sweeps": 0,
        "embedding": 2.0 * 50 * 1000,
        "search": 2.0 * 3000,
        "initial pretraining": SHORT * 800,
        "synthesizer tuning": LONG * 700,
        "prefill": LONG / 3 * 30,
        "decoding": LONG / 3 * 60,
    }
    assert found["total_flops_counted"] == pytest.approx(sum(found["flops"].values()))
    assert found["total_flops_counted"] - found["total_flops_owned"] == pytest.approx(SHORT * 800)


def test_self_samples_pay_for_the_writers_training_and_for_writing_only() -> None:
    work = Work(pretraining_tokens=800, context=256, prefill_tokens=0, generated_tokens=60, pairs=None)
    found = ledger(RECIPE, plan_of("self_samples"), work, sweep_tokens=0)
    assert found["flops"] == {
        "final training": SHORT * 800,
        "sweeps": 0,
        "initial pretraining": SHORT * 800,
        "decoding": SHORT / 3 * 60,
    }
