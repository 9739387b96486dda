"""The parity matrix on 8 ranks: three axes at a time, every pipeline schedule; and runs of several copies."""

from pathlib import Path

import pytest
import torch
from eight_ranks import CASES
from launch import launch
from layouts import Case
from parity_cases import job_of
from steps import assert_runs_agree, kept, references, wrong
from training_world import read_metrics

from megasbp.parallel.runtime import Runtime
from megasbp.training.trainer import train

# One launch of all cases.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]
Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("eight")
    launch("eight_ranks.py", folder, seconds=2300)
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str, str], Tensors]:
    return references(CASES, tmp_path_factory.mktemp("alone"))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_loss_norm_gradients_and_next_parameters_equal_one_process(
    launched: Path, alone: dict[tuple[str, str, str], Tensors], case: Case
) -> None:
    found = kept(launched / str(case))
    copy = found.pop("copy of the table", None)
    assert found.keys() == alone[case.reference].keys()
    assert not wrong(found, alone[case.reference], case.dtype)
    if copy is not None:
        assert torch.equal(copy, found["after.model.embedding.weight"])


def test_a_run_that_shards_copies_and_then_matrices_too_repeats_one_process(
    launched: Path, tmp_path: Path
) -> None:
    train(job_of(tmp_path / "job"), Runtime.start())
    assert_runs_agree(read_metrics(launched / "job"), read_metrics(tmp_path / "job"), 12)
