"""What a run reports while it runs: one row per step in metrics.jsonl, and TensorBoard."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

# Fields that differ between two runs of the same job; all others are equal.
TIME_FIELDS = (
    "seconds",
    "tokens_per_second",
    "mfu_causal",
    "mfu_full",
    "data_seconds",
    "peak_memory_bytes",
)

_SCALARS = ("loss", "learning_rate", "gradient_norm", "validation_loss", *TIME_FIELDS)


class MetricsLog:
    """Appends rows; opening it cuts both logs back to a step, so that after kills each step is there once.

    Args:
        folder: the job's folder; metrics.jsonl and tensorboard/ lie in it.
        last_step: the step of the checkpoint that the run resumes from; later rows are dropped.
    """

    def __init__(self, folder: Path, last_step: int) -> None:
        path = Path(folder) / "metrics.jsonl"
        _cut_back(path, last_step)
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 (closed by `close`)
        # Readers drop the points that earlier event files hold from purge_step on.
        self._board = SummaryWriter(str(Path(folder) / "tensorboard"), purge_step=last_step + 1)

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Appends rows; each has "step"."""
        for row in rows:
            self._file.write(json.dumps(row) + "\n")
            for name in _SCALARS:
                if row.get(name) is not None:
                    self._board.add_scalar(name, row[name], row["step"])
        self._file.flush()

    def sync(self) -> None:
        """Forces the rows to disk; called before a checkpoint, whose resumption counts on them."""
        os.fsync(self._file.fileno())
        self._board.flush()

    def close(self) -> None:
        """Closes both logs."""
        self._file.close()
        self._board.close()


def _cut_back(path: Path, last_step: int) -> None:
    if not path.exists():
        return
    end = 0
    with open(path, "rb") as file:
        for line in file:
            # Rows are in the order of the steps; after a kill the last one may be torn.
            if not line.endswith(b"\n") or json.loads(line)["step"] > last_step:
                break
            end += len(line)
    os.truncate(path, end)
