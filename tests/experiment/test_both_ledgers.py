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
    plan = ArmPlan(
        "any", 300, {"unique": 1}, {"unique": 600, "synthetic": 200}, {"unique": 1.0}, ({"unique": 1},)
    )
    found = ledger(RECIPE, plan, work, sweep_tokens=90)
    swept = 0 if work.writing is None else LONG * work.writing.swept_tokens
    assert found["matched_tokens"] == 800
    assert found["flops"].pop("final training") == SHORT * 800
    assert found["flops"].pop("sweeps") == SHORT * 90 + swept
    added = sum(found["flops"].values()) + swept
    assert found["total_flops_counted"] == pytest.approx(SHORT * 890 + added)
    owned = added - found["flops"].get("initial pretraining", 0)
    assert found["total_flops_owned"] == pytest.approx(SHORT * 890 + owned)
    return found["flops"]


def test_an_arm_of_real_text_pays_for_training_and_sweeps() -> None:
    assert flops_of(Work()) == {}


def test_neighbours_in_one_window_pay_for_being_found() -> None:
    assert flops_of(Work(search=SEARCH)) == SEARCHED


def test_an_arm_with_pairs_pays_for_all_that_led_to_its_text() -> None:
    writing = Writing(512, tuned_tokens=700, swept_tokens=110, prefill_tokens=30, generated_tokens=60)
    assert flops_of(Work(pretraining_tokens=800, search=SEARCH, writing=writing)) == {
        **SEARCHED,
        "initial pretraining": SHORT * 800,
        "synthesizer tuning": LONG * 700,
        "prefill": LONG / 3 * 30,
        "decoding": LONG / 3 * 60,
    }


def test_continuation_pays_for_no_search() -> None:
    writing = Writing(512, tuned_tokens=700, swept_tokens=110, prefill_tokens=30, generated_tokens=60)
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


class Units(list):
    """What the ledger reads of the units of the unique text."""

    tokens = 1000


def finished(embed: Stage | None, search: dict[str, Any] | None = None) -> Any:
    """A finished seed with two tunings of each kind, of which the first is used, and one of random pairs."""
    written = Stage("s", prefill_tokens=30, generated_tokens=60)
    tuned = {
        "true": [Stage("a", input_tokens=100), Stage("b", input_tokens=20)],
        "random": [Stage("c", input_tokens=7)],
        "continuation": [Stage("d", input_tokens=50), Stage("h", input_tokens=9)],
        "second": [Stage("f", input_tokens=40), Stage("g", input_tokens=5)],
    }
    return SimpleNamespace(
        baseline=Stage("e", input_tokens=800),
        embed=embed,
        pairs=Stage("pairs", train={"search": search or {"engine": "exact", "recall": 1.0}}),
        # Ten units, passages of fewer documents.
        context=SimpleNamespace(corpus=SimpleNamespace(open_units=lambda split: Units(range(10)))),
        true_synthesizers=tuned["true"],
        synthesizers=tuned.__getitem__,
        synthesizer=lambda kind: tuned[kind][0],
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
    # Of its tunings an arm pays for the one that writes; the others are its sweeps.
    assert work["sbp"] == work["seed_packing"] == Work(800, search, Writing(512, 100, 20, 30, 60))
    # The true ones chose its learning rate and steps, and write nothing of it.
    assert work["random_pairs"] == Work(800, search, Writing(512, 7, 120, 30, 60))
    assert work["continuation"] == Work(800, None, Writing(512, 50, 9, 30, 60))
    # The first round has paid for its own synthesizer, tuned on 100 tokens.
    assert work["second_round"] == Work(800, None, Writing(512, 40, 25, 30, 60), first_round_flops=4700.0)
    assert work["self_samples"] == Work(800, None, Writing(256, 0, 0, 0, 60))


def test_a_search_by_partitions_is_charged_with_the_rows_it_compares() -> None:
    by_parts = finished(Stage("embed", parameters=50, dimension=3), {"engine": "partitioned", "pairs": 4.5})
    found = arm_work(RECIPE, by_parts, "in_context").search
    assert found is not None
    # Ten queries of 4.5 rows each, three multiply-adds a row.
    assert found.multiply_adds == 135


def test_pairs_from_a_list_are_charged_with_no_search() -> None:
    listed = finished(Stage("embed", parameters=50, dimension=3))
    listed.pairs.facts["train"]["search"] = None
    found = arm_work(RECIPE, listed, "in_context").search
    assert found == Search(embedded_tokens=1000, embedder_parameters=50, multiply_adds=0)


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
    writing = Writing(256, tuned_tokens=0, swept_tokens=0, prefill_tokens=0, generated_tokens=60)
    assert flops_of(Work(pretraining_tokens=800, writing=writing)) == {
        "initial pretraining": SHORT * 800,
        "decoding": SHORT / 3 * 60,
    }
