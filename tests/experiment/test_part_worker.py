"""What a worker tells of a failure, and what the main process makes of it."""

import errno
import json
import os
from pathlib import Path

import pytest

from megasbp.errors import InputError, ShardError, StageError
from megasbp.experiment.gates import ClosedGate
from megasbp.experiment.part_worker import _Maker, _told, raisable

DEMO = Path(__file__).resolve().parents[2] / "configs" / "demo.toml"


def told(error: Exception) -> Exception:
    return raisable(json.loads(json.dumps(_told(error, "seed-0/train-sbp"))))


@pytest.mark.parametrize(
    "error, kind",
    [(ClosedGate("a: closed"), InputError), (ShardError("b"), ShardError), (StageError("c"), StageError)],
)
def test_what_the_command_line_prints_keeps_its_kind_and_its_line(
    error: Exception, kind: type[Exception]
) -> None:
    assert (type(told(error)), str(told(error))) == (kind, str(error))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES])
def test_what_a_disk_or_a_path_does_not_allow_keeps_its_number_and_its_file(number: int) -> None:
    error = told(OSError(number, os.strerror(number), "runs/demo/x"))
    assert isinstance(error, OSError)
    assert (error.errno, error.filename) == (number, "runs/demo/x")


def test_what_nobody_expected_is_printed_where_it_happened(capsys: pytest.CaptureFixture[str]) -> None:
    error = told(KeyError("speed"))
    assert isinstance(error, StageError)
    assert "seed-0/train-sbp: failed with KeyError" in str(error)
    assert "KeyError: 'speed'" in capsys.readouterr().err


def test_a_recipe_that_was_changed_under_way_is_refused() -> None:
    with pytest.raises(InputError, match=r"demo\.toml: was changed while it was run"):
        _Maker(str(DEMO), [], "0" * 64, None)
