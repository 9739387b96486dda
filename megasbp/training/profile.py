"""A window of steps under torch's profiler, written as a Chrome trace when it ends.

Open it in https://ui.perfetto.dev. Each rank writes its own; outside the window nothing is done.
"""

import gzip
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from megasbp.storage import publishing_file

PROFILES = "profile"


class ProfilerWindow:
    """Profiles the steps of a window that this process makes; a context manager.

    Args:
        folder: of the job; the trace goes to profile/rank-R.json.gz below, whole or not at all.
        steps: first and last step of the window, or None for no window.
    """

    def __init__(self, folder: Path, rank: int, steps: tuple[int, int] | None) -> None:
        self._path = Path(folder) / PROFILES / f"rank-{rank}.json.gz"
        self._steps = steps
        self._profile: profile | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A run that is stopped within the window keeps what it has seen; one that fails does not.
        if kind is None or issubclass(kind, SystemExit):
            self._write()
        elif self._profile is not None:
            self._profile.stop()

    @contextmanager
    def step(self, number: int) -> Iterator[None]:
        """Around a step; behind the window's last one the trace is written."""
        if self._steps is None or not self._steps[0] <= number <= self._steps[1]:
            yield
            return
        if self._profile is None:
            activities = [ProfilerActivity.CPU]
            if torch.cuda.is_available():
                activities.append(ProfilerActivity.CUDA)
            self._profile = profile(activities=activities)
            self._profile.start()
        with record_function(f"step {number}"):
            yield
        if number == self._steps[1]:
            self._write()

    def _write(self) -> None:
        if self._profile is None:
            return
        finished, self._profile = self._profile, None
        finished.stop()
        with publishing_file(self._path) as partial:
            plain = partial.with_name(f"{partial.name}.json")
            try:
                finished.export_chrome_trace(str(plain))
                with open(plain, "rb") as source, gzip.open(partial, "wb") as target:
                    shutil.copyfileobj(source, target)
            finally:
                plain.unlink(missing_ok=True)
