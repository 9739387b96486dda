"""The progress line: redrawn in place on a terminal, else at most one line in two seconds."""

import sys
import time
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from megasbp.durations import clock

_SECONDS_BETWEEN_LINES = 2.0


class ProgressLine:
    """Shows step, loss, learning rate, gradient norm, speed and time left on stderr; a context manager.

    Args:
        name: of the job, shown first.
        steps: of the whole job.
        silent: shows nothing (ranks other than the first).
    """

    def __init__(self, name: str, steps: int, silent: bool = False) -> None:
        self._name = name
        self._steps = steps
        self._silent = silent
        self._last_line = -_SECONDS_BETWEEN_LINES
        self._seconds_per_step: float | None = None
        self._bar: Progress | None = None
        if not silent and sys.stderr.isatty():
            self._bar = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(20),
                console=Console(stderr=True),
                transient=True,
            )
            self._task = self._bar.add_task(name, total=steps)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, row: dict[str, Any]) -> None:
        """Takes over a row of the metrics."""
        if self._silent:
            return
        # A running mean over about ten rows keeps the time left from jumping.
        before = row["seconds"] if self._seconds_per_step is None else self._seconds_per_step
        self._seconds_per_step = 0.9 * before + 0.1 * row["seconds"]
        now = time.monotonic()
        if self._bar is not None:
            self._bar.update(self._task, completed=row["step"], description=self._text(row))
        elif now - self._last_line >= _SECONDS_BETWEEN_LINES or row["step"] == self._steps:
            self._last_line = now
            print(self._text(row), file=sys.stderr, flush=True)

    def _text(self, row: dict[str, Any]) -> str:
        loss, norm = row["loss"], row["gradient_norm"]
        shown = "not finite, skipped" if row["skipped"] else f"loss {loss:.4f}  norm {norm:.2f}"
        if "validation_loss" in row:
            shown += f"  validation {row['validation_loss']:.4f}"
        # Both conventions would be long; the logs have the other one.
        used = "" if row["mfu_causal"] is None else f"MFU {row['mfu_causal']:.1%} causal  "
        time_left = clock((self._seconds_per_step or 0) * (self._steps - row["step"]))
        return (
            f"{self._name}  step {row['step']}/{self._steps}  {shown}  lr {row['learning_rate']:.2e}  "
            f"{row['tokens_per_second']:,.0f} tokens/s  {used}{time_left} left"
        )
