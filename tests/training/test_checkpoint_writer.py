"""Checkpoints written behind the training."""

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from training_world import RaggedSource, training_job

from megasbp.parallel.runtime import Runtime
from megasbp.training import checkpoint_writer
from megasbp.training.checkpoint import load_tensors, save_checkpoint
from megasbp.training.checkpoint_files import checkpoint_steps
from megasbp.training.checkpoint_writer import CheckpointWriter
from megasbp.training.trainer import train


def nothing() -> None:
    pass


def full_disk(*_: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def held_back(released: threading.Event) -> Callable[..., None]:
    """`save_checkpoint`, begun when `released` is set."""

    def save(*arguments: Any) -> None:
        assert released.wait(60)
        save_checkpoint(*arguments)

    return save


def saved(folder: Path) -> torch.Tensor:
    found = {"model.x": torch.zeros(3)}
    load_tensors(folder, found)
    return found["model.x"]


def test_the_values_at_the_call_are_written_though_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()
    monkeypatch.setattr(checkpoint_writer, "save_checkpoint", held_back(released))
    x = torch.full((3,), 1.0)
    with CheckpointWriter({"model.x": x}, Runtime.start()) as writer:
        writer.save(tmp_path / "one", {}, nothing)
        x.fill_(2)
        assert not (tmp_path / "one").exists()
        released.set()
        writer.save(tmp_path / "two", {}, nothing)
        assert (tmp_path / "one").exists(), "one write is in flight at a time"
        x.fill_(3)
    assert saved(tmp_path / "one").tolist() == [1, 1, 1]
    assert saved(tmp_path / "two").tolist() == [2, 2, 2]


def test_what_follows_a_checkpoint_happens_when_it_is_there(tmp_path: Path) -> None:
    there: list[bool] = []
    with CheckpointWriter({"model.x": torch.ones(3)}, Runtime.start()) as writer:
        writer.save(tmp_path / "one", {}, lambda: there.append((tmp_path / "one").exists()))
    assert there == [True]


def test_a_failure_is_seen_without_waiting_and_raised_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint_writer, "save_checkpoint", full_disk)
    with CheckpointWriter({"model.x": torch.ones(3)}, Runtime.start()) as writer:
        writer.save(tmp_path / "one", {}, nothing)
        while not writer.failed:
            pass
        with pytest.raises(OSError, match="No space left"):
            writer.wait()
        assert not writer.failed


def test_leaving_raises_the_failure_of_the_write_in_flight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint_writer, "save_checkpoint", full_disk)
    with (
        pytest.raises(OSError, match="No space left"),
        CheckpointWriter({"model.x": torch.ones(3)}, Runtime.start()) as writer,
    ):
        writer.save(tmp_path / "one", {}, nothing)


def test_leaving_by_another_error_keeps_that_error_and_names_the_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(checkpoint_writer, "save_checkpoint", full_disk)
    with (
        pytest.raises(InterruptedError),
        CheckpointWriter({"model.x": torch.ones(3)}, Runtime.start()) as writer,
    ):
        writer.save(tmp_path / "one", {}, nothing)
        raise InterruptedError
    assert "a checkpoint could not be written: [Errno 28] No space left" in capsys.readouterr().err


class WaitingSource(RaggedSource):
    """Gives the batches from step 12 on only once the write of step 10 has failed."""

    failed = threading.Event()

    def batch(self, indices: Any) -> Any:
        if indices[0] >= 11 * 8:
            assert self.failed.wait(60)
        return super().batch(indices)


def test_a_run_ends_at_the_step_at_which_a_write_behind_it_has_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = WaitingSource(1)
    two_checkpoints: dict[str, Any] = {"validation": None, "training": {"checkpoints": 2}}

    def fails(*_: Any) -> None:
        source.failed.set()
        full_disk()

    monkeypatch.setattr(checkpoint_writer, "save_checkpoint", fails)
    with pytest.raises(OSError, match="No space left"):
        train(training_job(tmp_path, source=source, **two_checkpoints), Runtime.start())
    rows = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert 10 <= len(rows) < 20, "the next save, at step 20, would have raised it too"
    monkeypatch.undo()
    assert train(training_job(tmp_path, **two_checkpoints), Runtime.start()).steps == 20
    assert checkpoint_steps(tmp_path / "checkpoints") == {10, 20}
