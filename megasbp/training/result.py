"""The result of a finished run: result.json, equal for equal jobs."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megasbp.errors import InputError
from megasbp.storage import publish_json, read_json, read_manifest
from megasbp.training.checkpoint_files import checkpoint_folder

CHECKPOINTS = "checkpoints"
_NAME = "result.json"


@dataclass
class TrainingResult:
    """A finished run.

    Attributes:
        folder: of the job.
        steps: optimiser steps done; fewer than asked for after an early stop.
        input_tokens: non-padding tokens read; valid_tokens: those with a label.
        last_checkpoint: the weights at the end.
        best_checkpoint: those of the lowest validation loss; the last ones without a validation source.
        best_validation_loss, final_validation_loss: nats per token; None without a validation source.
        history: one entry per validation: step, tokens (input tokens until then), validation_loss.
        skipped_steps: steps without an update because loss or gradient was not finite.
    """

    folder: Path
    steps: int
    input_tokens: int
    valid_tokens: int
    last_checkpoint: Path
    best_checkpoint: Path
    best_validation_loss: float | None
    final_validation_loss: float | None
    history: list[dict[str, Any]]
    skipped_steps: int = 0


def publish_result(folder: Path, values: dict[str, Any]) -> None:
    """Writes result.json: counts, steps and losses; no times, rates or paths."""
    publish_json(Path(folder) / _NAME, values)


def read_result(folder: Path) -> TrainingResult | None:
    """The result of a finished run; None when there is none, or a checkpoint that it names is gone."""
    folder = Path(folder)
    path = folder / _NAME
    if not path.exists():
        return None
    values = read_json(path)
    losses = [entry["validation_loss"] for entry in values["history"]]
    result = TrainingResult(
        folder=folder,
        steps=values["steps"],
        input_tokens=values["input_tokens"],
        valid_tokens=values["valid_tokens"],
        last_checkpoint=checkpoint_folder(folder / CHECKPOINTS, values["steps"]),
        best_checkpoint=checkpoint_folder(folder / CHECKPOINTS, values["best_step"]),
        best_validation_loss=min(losses, default=None),
        final_validation_loss=losses[-1] if losses else None,
        history=values["history"],
        skipped_steps=values["skipped_steps"],
    )
    whole = all(read_manifest(path) for path in (result.last_checkpoint, result.best_checkpoint))
    return result if whole else None


def wait_for_result(folder: Path, seconds: float = 120) -> TrainingResult:
    """The result that the main rank has published; a shared file system may show it to other hosts later.

    Raises:
        InputError: it is not there after so many seconds.
    """
    end = time.monotonic() + seconds
    while (result := read_result(folder)) is None:
        if time.monotonic() > end:
            raise InputError(
                f"{folder}: the main rank has published its result, which this host does not see after "
                f"{seconds:g} s; do all hosts share that folder? The same command continues"
            )
        time.sleep(0.2)
    return result
