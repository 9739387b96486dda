"""SIGTERM as a request: noted when it comes, obeyed between two steps."""

import signal
import threading
from types import FrameType
from typing import Any, Self

# The status that a shell gives a process ended by SIGTERM.
STOPPED_STATUS = 128 + signal.SIGTERM


class StopSignal:
    """While open, SIGTERM sets `received` instead of ending the process; a context manager.

    Outside the main thread Python takes no handlers, and SIGTERM keeps its meaning.
    """

    def __init__(self) -> None:
        self.received = False
        self._before: Any = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = True
