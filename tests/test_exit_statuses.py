"""How a command line ends: the status, and the one line that says what was wrong."""

import argparse
import errno
import os

import pytest

from megasbp.command import run_command
from megasbp.errors import InputError, ShardError, StageError


def ended(failure: BaseException | int | None, kept: str = "") -> int:
    """The status of a command whose work ends so."""

    def work(options: argparse.Namespace) -> int | None:
        if isinstance(failure, BaseException):
            raise failure
        return failure

    return run_command("tool", work, argparse.Namespace(), kept)


def system_error(number: int, *place: str) -> OSError:
    return OSError(number, os.strerror(number), *place)


@pytest.mark.parametrize(("returned", "status"), [(None, 0), (0, 0), (1, 1)])
def test_work_that_succeeds_gives_the_status(returned, status, capsys):
    assert ended(returned) == status
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("failure", "status", "line"),
    [
        (InputError("a.b is 3; set it to 4"), 2, "a.b is 3; set it to 4"),
        (ShardError("shard 3 failed"), 1, "shard 3 failed"),
        (StageError("train-sbp: failed"), 1, "train-sbp: failed"),
        (
            system_error(errno.ENOSPC, "a/b"),
            2,
            "a/b: No space left on device; free some disk and run the same command again",
        ),
        (
            OSError(errno.EDQUOT, "Error writing bytes to file"),
            2,
            f"{os.strerror(errno.EDQUOT)}; free some disk and run the same command again",
        ),
        (system_error(errno.EACCES, "a/b"), 2, "a/b: Permission denied"),
        (system_error(errno.ENOTDIR, "a/b"), 2, "a/b: Not a directory"),
        (system_error(errno.EISDIR, "a/b"), 2, "a/b: Is a directory"),
        (system_error(errno.EEXIST, "a/b"), 2, "a/b: File exists"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_what_the_user_can_mend_is_one_line(failure, status, line, capsys):
    assert ended(failure) == status
    assert capsys.readouterr().err == f"tool: {line}\n"


@pytest.mark.parametrize(
    ("failure", "end"),
    [
        (system_error(errno.ENOSPC, "a"), "run the same command again, finished shards are kept\n"),
        (system_error(errno.EACCES, "a"), "Permission denied; finished shards are kept\n"),
        (KeyboardInterrupt(), "interrupted; the same command continues where this one stopped\n"),
    ],
)
def test_what_is_kept_is_said(failure, end, capsys):
    ended(failure, "finished shards")
    assert capsys.readouterr().err.endswith(end)


@pytest.mark.parametrize(
    "failure",
    [
        ValueError("a defect"),
        # A file that the program itself should have written.
        system_error(errno.ENOENT, "a/b"),
        # Of a pipe or a socket, and not of a path.
        system_error(errno.EACCES),
    ],
)
def test_a_defect_keeps_its_traceback(failure):
    with pytest.raises(type(failure)):
        ended(failure)
