"""The parity matrix on 8 ranks: three axes at a time, every pipeline schedule."""

from pathlib import Path

import pytest
import torch
from eight_ranks import CASES
from launch import launch
from layouts import Case
from steps import kept, references, wrong

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
