"""Every layout of the ranks computes what one process computes."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from launch import launch
from layouts import SCHEDULES, Case, config_of, layout_name
from mutations import MUTATIONS
from parity_cases import CASES, IN_BF16, LAYOUTS, NEAR_BF16, RECOMPUTED, SAVED, job_of
from steps import GLOBAL_BATCH, assert_runs_agree, errors, kept, references, wrong
from training_world import RaggedSource, initial_model, read_metrics

from megasbp.model.transformer import Transformer
from megasbp.parallel.config import DEFERRING, ParallelConfig
from megasbp.parallel.runtime import Runtime
from megasbp.training.trainer import train
from megasbp.training.validation import validation_loss

# The launch: some minutes on two quiet cores.
pytestmark = pytest.mark.timeout(1500)
Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parity")
    launch("parity_cases.py", folder, seconds=1400)
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str, str], Tensors]:
    return references(CASES, tmp_path_factory.mktemp("alone"))


@pytest.fixture(scope="module")
def facts(launched: Path) -> dict[str, Any]:
    return json.loads((launched / "facts.json").read_text())


@pytest.mark.parametrize("reference", sorted({case.reference for case in CASES}), ids=str)
def test_every_gradient_of_the_reference_is_there(
    alone: dict[tuple[str, str, str], Tensors], reference: tuple[str, str, str]
) -> None:
    gradients = {name: tensor for name, tensor in alone[reference].items() if "gradient" in name}
    assert len(gradients) == 2 * len(list(Transformer(config_of(reference[0])).parameters()))
    for name, tensor in gradients.items():
        assert float(tensor.norm()) > 1e-3, name


@pytest.mark.parametrize("case", CASES, ids=str)
def test_loss_norm_gradients_and_next_parameters_equal_one_process(
    launched: Path, alone: dict[tuple[str, str, str], Tensors], case: Case
) -> None:
    found, expected = kept(launched / str(case)), alone[case.reference]
    copy = found.pop("copy of the table", None)
    assert found.keys() == expected.keys()
    assert not wrong(found, expected, case.dtype)
    tied_pipeline = case.parallel.pipeline > 1 and case.model.startswith("tied")
    assert (copy is not None) == tied_pipeline
    if copy is not None:
        assert torch.equal(copy, found["after.model.embedding.weight"])


@pytest.mark.parametrize("case", RECOMPUTED, ids=str)
def test_activations_that_are_computed_again_change_no_bit(launched: Path, case: Case) -> None:
    found = kept(launched / str(case))
    expected = kept(launched / str(replace(case, checkpointing="none")))
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize("case", IN_BF16[1:], ids=str)
def test_schedules_add_gradients_of_bf16_in_fp32(launched: Path, case: Case) -> None:
    found, expected = kept(launched / str(case)), kept(launched / str(IN_BF16[0]))
    gradients = [name for name in expected if name.startswith("0.gradient")]
    assert gradients and all(torch.equal(found[name], expected[name]) for name in gradients)


@pytest.mark.parametrize("case", NEAR_BF16, ids=str)
def test_gradients_of_bf16_stay_near_those_of_fp64(
    launched: Path, alone: dict[tuple[str, str, str], Tensors], case: Case
) -> None:
    found, exact = kept(launched / str(case)), alone[replace(case, dtype="fp64").reference]
    gradients = [name for name in exact if name.startswith("0.gradient")]
    assert len(gradients) == len(list(Transformer(config_of(case.model)).parameters()))
    for name, error in errors(found, {name: exact[name] for name in gradients}).items():
        # Rounding to bf16 is wrong by up to 2**-8, several times over in a block: one process by 2**-5.8.
        assert error < 2**-5, name


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_schedule_that_defers_the_gradients_of_weights_computes_each_once(
    facts: dict[str, Any], schedule: str
) -> None:
    passes = facts[f"{schedule} passes"]
    micro_batches = GLOBAL_BATCH // 2
    stages_of_rank = ParallelConfig(pipeline=2, schedule=schedule).stages // 2
    assert passes["full"] + passes["weights"] == micro_batches * stages_of_rank
    assert passes["inputs"] == passes["weights"]
    assert passes["early"] == 0
    assert (passes["weights"] > 0) == (schedule in DEFERRING)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.__name__)
def test_the_matrix_catches_a_mistake(
    launched: Path, alone: dict[tuple[str, str, str], Tensors], mutation: Any
) -> None:
    found = errors(kept(launched / mutation.__name__), alone[MUTATIONS[mutation].reference])
    assert max(found.values()) > 1e-3, found


@pytest.mark.parametrize("layout", SAVED, ids=layout_name)
@pytest.mark.parametrize("saved", SAVED, ids=layout_name)
def test_a_checkpoint_of_one_layout_goes_on_at_another(
    facts: dict[str, Any], saved: ParallelConfig, layout: ParallelConfig
) -> None:
    (continued,) = facts[f"{layout_name(saved)} to {layout_name(layout)}"]
    expected = facts[f"{layout_name(saved)} uninterrupted"][1]
    if saved == layout:
        assert continued == expected
    assert continued == pytest.approx(expected, rel=1e-6)


def test_the_loss_after_the_next_step_shows_what_was_loaded_of_the_moments(facts: dict[str, Any]) -> None:
    (spoiled,) = facts["moments lost"]
    expected = facts[f"{layout_name(SAVED[0])} uninterrupted"][1]
    assert spoiled[:2] == pytest.approx(expected[:2], rel=1e-6)
    assert spoiled[2] != pytest.approx(expected[2], rel=1e-4)


@pytest.mark.parametrize("layout", LAYOUTS, ids=layout_name)
def test_validation_equals_one_process_though_rows_do_not_divide(
    facts: dict[str, Any], layout: ParallelConfig
) -> None:
    runtime = Runtime.start()
    model = initial_model(config_of("tied, 5 layers"), runtime)
    expected = validation_loss(model, RaggedSource(2, 7), 2, runtime)
    assert facts[f"{layout_name(layout)} validation"] == pytest.approx(expected, rel=1e-6)


def test_a_run_that_changes_its_layout_midway_repeats_one_process(launched: Path, tmp_path: Path) -> None:
    train(job_of(tmp_path / "job"), Runtime.start())
    found, expected = read_metrics(launched / "job"), read_metrics(tmp_path / "job")
    assert_runs_agree(found, expected, 12)


def test_heads_that_the_ranks_cannot_share_are_refused_before_anything_is_written(
    facts: dict[str, Any],
) -> None:
    assert "parallel.tensor is 2, which does not divide model.heads 3; set it to 1" in facts["refusal"]


def test_a_step_of_too_few_micro_batches_is_refused(facts: dict[str, Any]) -> None:
    # 8 rows of the global batch on the one rank that reads, all of them one micro-batch.
    assert (
        "parallel.schedule 1f1b over 2 ranks cannot run 1 micro-batches a step; set training.global_batch to "
        "16, or training.micro_batch to 4"
    ) in facts["too few"]


def test_deferred_gradients_with_activations_computed_again_are_refused(facts: dict[str, Any]) -> None:
    assert "training.activation_checkpointing is 'full'" in facts["recomputed and deferred"]
    assert "parallel.schedule 'zbv_zero_bubble'" in facts["recomputed and deferred"]
