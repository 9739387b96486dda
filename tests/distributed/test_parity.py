"""Every layout of the ranks computes what one process computes."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from launch import launch
from mutations import MUTATIONS
from parity_cases import (
    AT_SOME,
    CASES,
    DTYPES,
    EVERYWHERE,
    LAYOUTS,
    MICRO_BATCH,
    MODELS,
    SAVED,
    case_name,
    job_of,
    wide_config,
)
from safetensors.torch import load_file
from steps import assert_runs_agree, build_model, tensors_of_steps
from training_world import RaggedSource

from megasbp.model.transformer import Transformer
from megasbp.parallel.recompute import MODES
from megasbp.parallel.runtime import Runtime
from megasbp.training.metrics import read_metrics
from megasbp.training.trainer import train
from megasbp.training.validation import validation_loss

# The launch: two minutes on two quiet cores.
pytestmark = pytest.mark.timeout(900)
# ||difference|| / ||reference|| of a gradient, and of what two steps of AdamW have made of the parameters.
BOUNDS = {"fp64": (1e-10, 1e-8), "fp32": (1e-5, 1e-5)}


def errors(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> dict[str, float]:
    """||difference|| / ||reference|| of each tensor."""
    return {name: float((found[name] - tensor).norm() / tensor.norm()) for name, tensor in expected.items()}


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parity")
    launch("parity_cases.py", folder, seconds=800)
    return folder


@pytest.fixture(scope="module")
def alone() -> dict[tuple[str, str], dict[str, torch.Tensor]]:
    runtime = Runtime.start()
    return {
        (name, dtype): tensors_of_steps(
            runtime, build_model(runtime, wide_config(**MODELS[name]), DTYPES[dtype]), MICRO_BATCH
        )
        for name, dtype in (*EVERYWHERE, *AT_SOME)
    }


@pytest.fixture(scope="module")
def facts(launched: Path) -> dict[str, Any]:
    return json.loads((launched / "facts.json").read_text())


@pytest.mark.parametrize(("model", "dtype"), (*EVERYWHERE, *AT_SOME))
def test_every_gradient_of_the_reference_is_there(
    alone: dict[tuple[str, str], dict[str, torch.Tensor]], model: str, dtype: str
) -> None:
    gradients = {name: tensor for name, tensor in alone[model, dtype].items() if "gradient" in name}
    assert len(gradients) == 2 * len(list(Transformer(wide_config(**MODELS[model])).parameters()))
    for name, tensor in gradients.items():
        assert float(tensor.norm()) > 1e-3, name


@pytest.mark.parametrize(("layout", "model", "dtype"), CASES, ids=str)
def test_loss_norm_gradients_and_next_parameters_equal_one_process(
    launched: Path,
    alone: dict[tuple[str, str], dict[str, torch.Tensor]],
    layout: tuple[int, ...],
    model: str,
    dtype: str,
) -> None:
    found = load_file(launched / f"{case_name(layout, model, dtype)}.safetensors")
    expected = alone[model, dtype]
    assert found.keys() == expected.keys()
    of_gradient, of_parameter = BOUNDS[dtype]
    wrong = {
        name: error
        for name, error in errors(found, expected).items()
        if error > (of_gradient if name.startswith("0.") else of_parameter)
    }
    assert not wrong


@pytest.mark.parametrize("mode", MODES)
def test_activations_that_are_computed_again_change_no_bit(launched: Path, mode: str) -> None:
    found, expected = (
        load_file(launched / f"{name}.safetensors")
        for name in (mode, case_name((1, 2, 1, 2), "tied", "fp64"))
    )
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize("mutation", [mutation.__name__ for mutation in MUTATIONS])
def test_the_matrix_catches_a_mistake(
    launched: Path, alone: dict[tuple[str, str], dict[str, torch.Tensor]], mutation: str
) -> None:
    found = errors(load_file(launched / f"{mutation}.safetensors"), alone["tied", "fp64"])
    assert max(found.values()) > 1e-3, found


@pytest.mark.parametrize("layout", SAVED, ids=str)
@pytest.mark.parametrize("saved", SAVED, ids=str)
def test_a_checkpoint_of_one_layout_goes_on_at_another(
    facts: dict[str, Any], saved: tuple[int, ...], layout: tuple[int, ...]
) -> None:
    (continued,) = facts[f"{saved} to {layout}"]
    expected = facts[f"{saved} uninterrupted"][1]
    if saved == layout:
        assert continued == expected
    assert continued == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_validation_equals_one_process_though_rows_do_not_divide(
    facts: dict[str, Any], layout: tuple[int, ...]
) -> None:
    runtime = Runtime.start()
    model = build_model(runtime, wide_config(), torch.float32)
    expected = validation_loss(model, RaggedSource(2, 7), 2, runtime)
    assert facts[f"{layout} validation"] == pytest.approx(expected, rel=1e-6)


def test_a_run_that_changes_its_layout_midway_repeats_one_process(launched: Path, tmp_path: Path) -> None:
    train(job_of(tmp_path / "job"), Runtime.start())
    found, expected = read_metrics(launched / "job"), read_metrics(tmp_path / "job")
    assert_runs_agree(found, expected, 12)


def test_heads_that_the_ranks_cannot_share_are_refused_before_anything_is_written(
    facts: dict[str, Any],
) -> None:
    assert "parallel.tensor is 2, which does not divide model.heads 3; set it to 1" in facts["refusal"]
