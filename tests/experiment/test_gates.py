"""Gates: what opens them, what a closed one says, and that it ends the run only where the recipe says so."""

from pathlib import Path

import numpy as np
import pytest

from megasbp.data.indexed_dataset import IndexedDataset, IndexedDatasetWriter
from megasbp.errors import InputError
from megasbp.experiment.gate_stages import first_documents
from megasbp.experiment.gates import (
    ClosedGate,
    GatesConfig,
    baseline_gate,
    copying_gate,
    pair_value_gate,
    require_open,
    round_gate,
)
from megasbp.experiment.recipe import load_recipe

DEMO = Path(__file__).resolve().parents[2] / "configs" / "demo.toml"


def table(low: float | None, high: float | None = 0.5) -> dict:
    return {"contrasts": {"worth": {"estimate": 0.1, "low": low, "high": high}}}


def history(*losses: float) -> list[dict]:
    """Validations evenly spaced over the budget."""
    return [
        {"step": number, "tokens": 1000 * number, "validation_loss": loss}
        for number, loss in enumerate(losses, start=1)
    ]


@pytest.mark.parametrize(
    ("tables", "is_open"),
    [
        ({"new_target": table(0.01)}, True),
        ({"new_target": table(0.01), "new_seed_and_target": table(0.002)}, True),
        ({"new_target": table(0.01), "new_seed_and_target": table(-0.002)}, False),
        ({"new_target": table(0.0)}, False),
        ({"new_target": table(None, None)}, False),
        ({}, False),
    ],
)
def test_every_interval_of_the_pair_value_must_lie_above_zero(tables: dict, is_open: bool) -> None:
    gate = pair_value_gate(tables)
    assert gate.open == is_open
    assert (gate.mend is None) == is_open


@pytest.mark.parametrize(("share", "is_open"), [(0.02, True), (0.07, True), (0.0701, False), (0.5, False)])
def test_copying_is_measured_beyond_that_of_real_text(share: float, is_open: bool) -> None:
    gate = copying_gate({"sbp": share, "random_pairs": 0.0}, real=0.02, limit=0.05)
    assert gate.open == is_open


@pytest.mark.parametrize(
    ("loss", "distinct", "is_open"),
    [(3.9, 0.8, True), (3.9, 0.761, True), (3.9, 0.759, False), (4.0, 0.9, False)],
)
def test_a_round_pays_with_a_better_synthesizer_and_text_as_diverse(loss, distinct, is_open) -> None:
    first, second = {"pair_loss": 4.0, "distinct": 0.8}, {"pair_loss": loss, "distinct": distinct}
    gate = round_gate(first, second, limit=0.05)
    assert gate.open is is_open
    assert (gate.mend is None) is is_open


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        (0, []),
        (1, []),
        (3, [4, 5]),
        (5, [4, 5, 6]),
        (6, [4, 5, 6]),
        (8, [4, 5, 6, 7]),
        (12, [4, 5, 6, 7, 8, 9, 10]),
    ],
)
def test_rounds_are_compared_on_as_many_tokens(tmp_path: Path, tokens: int, expected: list[int]) -> None:
    # Of 5, 3 and 6 tokens with their bos and eos, which do not count where a document is compared.
    with IndexedDatasetWriter(tmp_path / "text", "uint16", metadata={}) as writer:
        for document in ([1, 4, 5, 6, 2], [1, 7, 2], [1, 8, 9, 10, 11, 2]):
            writer.add_document(np.array(document, np.uint16))
    text = IndexedDataset(tmp_path / "text")
    found = first_documents(text, tokens)
    assert [int(token) for document in found for token in document] == expected


def test_one_arm_that_copies_closes_the_gate() -> None:
    gate = copying_gate({"sbp": 0.0, "random_pairs": 0.3}, real=0.0, limit=0.05)
    assert not gate.open
    assert "random_pairs 30.0%" in gate.finding


def test_a_baseline_past_its_minimum_is_open() -> None:
    gate = baseline_gate(history(5.0, 4.0, 4.2, 4.3), saturated_below=0.01)
    assert gate.open
    assert "0.3000 nats per token past its minimum, at 50% of the budget" in gate.finding


@pytest.mark.parametrize(("last", "is_open"), [(3.995, True), (3.98, False)])
def test_a_baseline_that_no_longer_improves_is_open(last: float, is_open: bool) -> None:
    # Three quarters of the budget end at 4.0.
    gate = baseline_gate(history(5.0, 4.4, 4.0, last), saturated_below=0.01)
    assert gate.open == is_open
    assert is_open or "raise budget.tokens_per_arm, or lower corpus.unique" in str(gate.mend)


def test_a_rise_within_the_noise_is_not_past_the_minimum() -> None:
    # It fell all the way, and its last validation lies a hair above the one before.
    losses = {500: 4.60, 750: 4.30, 950: 4.1000, 1000: 4.1001}
    falling = [{"step": at, "tokens": at, "validation_loss": loss} for at, loss in losses.items()]
    gate = baseline_gate(falling, saturated_below=0.01)
    assert not gate.open
    assert "lowered the baseline's loss by 0.1999 nats per token" in gate.finding
    # The same rise where nothing fell before it.
    gate = baseline_gate(history(5.0, 4.1, 4.1, 4.1001), saturated_below=0.01)
    assert gate.open
    assert "raised the baseline's loss by 0.0001 nats per token" in gate.finding


def test_one_validation_cannot_tell() -> None:
    gate = baseline_gate(history(5.0), saturated_below=0.01)
    assert (gate.open, gate.mend) == (False, "set training.validations to at least 4")


def test_a_closed_gate_ends_the_run_only_where_the_recipe_says_so() -> None:
    gates = [pair_value_gate({"new_target": table(0.1)}), baseline_gate(history(5.0), 0.01)]
    require_open(gates, GatesConfig(), "seed-0/gates")
    with pytest.raises(ClosedGate, match="seed-0/gates: gate baseline closed: too few .* at least 4"):
        require_open(gates, GatesConfig(closed="stop"), "seed-0/gates")
    require_open(gates[:1], GatesConfig(closed="stop"), "seed-0/gates")


def test_the_recipe_refuses_another_word() -> None:
    assert load_recipe(DEMO, ["gates.closed=stop"]).gates.closed == "stop"
    with pytest.raises(InputError, match="gates.closed"):
        load_recipe(DEMO, ["gates.closed=halt"])
