"""Both ledgers, against numbers worked out by hand: an arm pays for what it uses, and for nothing else."""

from pathlib import Path

import pytest

from megasbp.experiment.budget import ArmPlan
from megasbp.experiment.ledger import Search, Work, Writing, ledger
from megasbp.experiment.recipe import load_recipe
from megasbp.model.flops import flops_per_token

RECIPE = load_recipe(Path(__file__).resolve().parents[2] / "configs" / "demo.toml")
# Operations of a token, forward and backward, in rows of a training sequence and of the synthesizer.
SHORT = flops_per_token(RECIPE.model, 256, causal=True)
LONG = flops_per_token(RECIPE.model, 512, causal=True)
SEARCH = Search(embedded_tokens=1000, embedder_parameters=50, multiply_adds=3000)
SEARCHED = {"embedding": 2.0 * 50 * 1000, "search": 2.0 * 3000}


def flops_of(work: Work) -> dict[str, float]:
    """What `work` adds to training and sweeps."""
    plan = ArmPlan("any", 300, {"unique": 1}, {"unique": 600, "synthetic": 200}, {"unique": 1.0})
    found = ledger(RECIPE, plan, work, sweep_tokens=90)
    assert found["matched_tokens"] == 800
    assert found["flops"].pop("final training") == SHORT * 800
    assert found["flops"].pop("sweeps") == SHORT * 90
    added = sum(found["flops"].values())
    assert found["total_flops_counted"] == pytest.approx(SHORT * 890 + added)
    owned = added - found["flops"].get("initial pretraining", 0)
    assert found["total_flops_owned"] == pytest.approx(SHORT * 890 + owned)
    return found["flops"]


def test_an_arm_of_real_text_pays_for_training_and_sweeps() -> None:
    assert flops_of(Work()) == {}


def test_neighbours_in_one_window_pay_for_being_found() -> None:
    assert flops_of(Work(search=SEARCH)) == SEARCHED


def test_an_arm_with_pairs_pays_for_all_that_led_to_its_text() -> None:
    writing = Writing(context=512, tuned_tokens=700, prefill_tokens=30, generated_tokens=60)
    assert flops_of(Work(pretraining_tokens=800, search=SEARCH, writing=writing)) == {
        **SEARCHED,
        "initial pretraining": SHORT * 800,
        "synthesizer tuning": LONG * 700,
        "prefill": LONG / 3 * 30,
        "decoding": LONG / 3 * 60,
    }


def test_continuation_pays_for_no_search() -> None:
    writing = Writing(context=512, tuned_tokens=700, prefill_tokens=30, generated_tokens=60)
    assert set(flops_of(Work(pretraining_tokens=800, writing=writing))) == {
        "initial pretraining",
        "synthesizer tuning",
        "prefill",
        "decoding",
    }


def test_self_samples_pay_for_the_writers_training_and_for_writing_only() -> None:
    writing = Writing(context=256, tuned_tokens=0, prefill_tokens=0, generated_tokens=60)
    assert flops_of(Work(pretraining_tokens=800, writing=writing)) == {
        "initial pretraining": SHORT * 800,
        "decoding": SHORT / 3 * 60,
    }
