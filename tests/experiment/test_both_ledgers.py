"""Both ledgers, against numbers worked out by hand: an arm pays for what it uses, and for nothing else."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from megasbp.experiment.arms import ARMS
from megasbp.experiment.budget import ArmPlan
from megasbp.experiment.ledger import Search, Work, Writing, ledger
from megasbp.experiment.recipe import load_recipe
from megasbp.experiment.work import arm_work
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


class Stage:
    """What the ledger reads of a finished stage."""

    def __init__(self, folder: str, **facts: Any) -> None:
        self.folder, self.facts = folder, facts


def finished(embed: Stage | None) -> Any:
    """A finished seed with two true tunings, one of random pairs and one of continuation."""
    written = Stage("s", prefill_tokens=30, generated_tokens=60)
    datasets = Stage("datasets", unique={"tokens": 1000, "documents": 10})
    return SimpleNamespace(
        baseline=Stage("e", input_tokens=800),
        embed=embed,
        context=SimpleNamespace(corpus=SimpleNamespace(datasets=datasets)),
        true_synthesizers=[Stage("a", input_tokens=100), Stage("b", input_tokens=20)],
        random_synthesizer=Stage("c", input_tokens=7),
        continuation_synthesizers=[Stage("d", input_tokens=50)],
        second_synthesizers=[Stage("f", input_tokens=40), Stage("g", input_tokens=5)],
        arm=lambda arm: SimpleNamespace(
            synthesis=None if ARMS[arm].writer is None else written,
            ledger={"total_flops_owned": 5000.0, "flops": {"sweeps": 300.0}},
        ),
    )


def test_each_arm_is_charged_with_its_own_work() -> None:
    first = finished(Stage("embed", parameters=50, dimension=3))
    search = Search(embedded_tokens=1000, embedder_parameters=50, multiply_adds=10 * 10 * 3)
    work = {arm: arm_work(RECIPE, first, arm) for arm in ARMS}
    assert work["baseline"] == work["oracle"] == Work()
    assert work["in_context"] == Work(search=search)
    assert work["sbp"] == work["seed_packing"] == Work(800, search, Writing(512, 120, 30, 60))
    assert work["random_pairs"] == Work(800, search, Writing(512, 127, 30, 60))
    assert work["continuation"] == Work(800, None, Writing(512, 50, 30, 60))
    assert work["second_round"] == Work(800, None, Writing(512, 45, 30, 60), first_round_flops=4700.0)
    assert work["self_samples"] == Work(800, None, Writing(256, 0, 0, 60))


def test_neighbours_found_by_the_runs_own_model_pay_for_that_model() -> None:
    pairing = RECIPE.pairing.model_copy(update={"embedder": "checkpoint"})
    own = RECIPE.model_copy(update={"pairing": pairing})
    first = finished(Stage("embed", parameters=50, dimension=3))
    assert arm_work(own, first, "in_context").pretraining_tokens == 800
    assert arm_work(RECIPE, first, "in_context").pretraining_tokens == 0


def test_a_second_round_pays_for_the_first_one_in_both_readings() -> None:
    assert flops_of(Work(pretraining_tokens=800, first_round_flops=1e9)) == {
        "initial pretraining": SHORT * 800,
        "first round": 1e9,
    }


def test_self_samples_pay_for_the_writers_training_and_for_writing_only() -> None:
    writing = Writing(context=256, tuned_tokens=0, prefill_tokens=0, generated_tokens=60)
    assert flops_of(Work(pretraining_tokens=800, writing=writing)) == {
        "initial pretraining": SHORT * 800,
        "decoding": SHORT / 3 * 60,
    }
