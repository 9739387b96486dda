"""Rows of the steps: their losses stay on the device until they are asked for."""

import math
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch

from megasbp.training.metrics import MetricsLog
from megasbp.training.progress import ProgressLine
from megasbp.training.utilisation import Utilisation, peak_memory_bytes


class Recorder:
    """Collects the rows of the steps and writes them to the logs and the progress line; a context manager.

    Args:
        folder: of the job.
        last_step: the step that the run continues from; the logs are cut back to it.
        writes: whether this rank writes and speaks; the others only read their rows.
        device: whose memory is reported.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        steps: int,
        last_step: int,
        *,
        writes: bool,
        utilisation: Utilisation,
        device: torch.device,
    ) -> None:
        self._utilisation, self._device = utilisation, device
        self._log = MetricsLog(folder, last_step) if writes else None
        self._progress = ProgressLine(name, steps, silent=not writes)
        self._pending: list[tuple[dict[str, Any], int, torch.Tensor]] = []
        self._clock = time.perf_counter()

    def __enter__(self) -> Self:
        self._progress.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.__exit__(kind, error, trace)
        if self._log is not None:
            self._log.close()

    def __len__(self) -> int:
        return len(self._pending)

    def add(self, row: dict[str, Any], tokens: int, measured: torch.Tensor) -> None:
        """Takes a step's row, its input tokens, and its loss and gradient norm (on the device)."""
        self._pending.append((row, tokens, measured))

    def read(self) -> list[dict[str, Any]]:
        """The rows since the last call, complete; waits for the device once.

        What is not finite is None, and the row's "skipped" is true. The time of a step is the mean since the
        clock was last started, the memory the most of these steps.
        """
        if not self._pending:
            return []
        values = torch.stack([measured for _, _, measured in self._pending]).tolist()
        seconds = (time.perf_counter() - self._clock) / len(values)
        memory = peak_memory_bytes(self._device)
        rows = []
        for (row, tokens, _), (loss, norm) in zip(self._pending, values, strict=True):
            finite = math.isfinite(loss) and math.isfinite(norm)
            row |= {
                "loss": loss if math.isfinite(loss) else None,
                "gradient_norm": norm if math.isfinite(norm) else None,
                "skipped": not finite,
                "seconds": round(seconds, 6),
                "tokens_per_second": round(tokens / seconds, 1),
                **self._utilisation.of(tokens / seconds),
                "peak_memory_bytes": memory,
            }
            rows.append(row)
        self._pending = []
        return rows

    def write(self, rows: list[dict[str, Any]]) -> None:
        """Appends rows to the logs and shows the last one."""
        if self._log is not None:
            self._log.write(rows)
        if rows:
            self._progress.update(rows[-1])

    def sync(self) -> None:
        """Forces the written rows to disk."""
        if self._log is not None:
            self._log.sync()

    def start_clock(self) -> None:
        """Leaves what was done since the last step (validation, checkpoint) out of the next one's time."""
        self._clock = time.perf_counter()
