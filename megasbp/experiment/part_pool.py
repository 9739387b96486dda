"""The workers of `megasbp run --jobs`: long-lived processes, because a fresh one takes seconds of imports."""

import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import IO, Any, TextIO

from megasbp.errors import StageError
from megasbp.experiment.part_worker import raisable
from megasbp.experiment.schedule import Task
from megasbp.shards.process import PipedProcess

# A dead worker is seen at the latest after this time.
_SECONDS_BETWEEN_LOOKS = 0.5
# A worker that was told to end and does not is killed.
_SECONDS_TO_END = 10.0


@dataclass
class _Worker:
    process: PipedProcess
    forwarders: list[threading.Thread]
    task: Task | None = None

    def end(self) -> None:
        """Ends it, when what it has said is said."""
        self.process.end()
        for forwarder in self.forwarders:
            # A child of another process group may hold the pipe open.
            forwarder.join(_SECONDS_TO_END)


class PartPool:
    """Processes that make tasks, each one at a time. Their lines come out whole, where this one's do.

    A context manager: what still works at its end is sent SIGTERM and waited for, so that training writes its
    checkpoint.

    Args:
        jobs: how many.
        opening: what each is told first, of `part_worker`.
        module: whose `serve` they run.

    Attributes:
        speaking: held while a line is written; whoever else writes, holds it too.
    """

    def __init__(
        self, jobs: int, opening: Mapping[str, Any], module: str = "megasbp.experiment.part_worker"
    ) -> None:
        self._jobs, self._opening, self._module = jobs, dict(opening), module
        self._workers: list[_Worker] = []
        self.speaking = threading.Lock()

    def __enter__(self) -> "PartPool":
        return self

    def __exit__(self, *_: object) -> None:
        try:
            for worker in self._workers:
                # Also one that works: training that takes its last step does not obey the signal any more.
                worker.process.send(None)
                if worker.task is not None:
                    worker.process.popen.terminate()
            for worker in self._workers:
                with suppress(subprocess.TimeoutExpired):
                    worker.process.popen.wait(None if worker.task else _SECONDS_TO_END)
        finally:
            for worker in self._workers:
                worker.end()

    def has_room(self) -> bool:
        """Whether another task can be begun now."""
        return len(self.working) < self._jobs

    @property
    def working(self) -> list[Task]:
        """The tasks that have not ended."""
        return [worker.task for worker in self._workers if worker.task is not None]

    def submit(self, task: Task) -> None:
        """Begins a task; needs room."""
        worker = self._idle() or self._start()
        worker.task = task
        worker.process.send({"part": task.part.name, "piece": task.piece})

    def wait(self) -> list[tuple[Task, Exception | None]]:
        """Tasks that have ended by now, each with what it failed with; at least one, unless none works."""
        ended: list[tuple[Task, Exception | None]] = []
        while self.working and not ended:
            busy = [worker for worker in self._workers if worker.task is not None]
            ready = wait([worker.process.connection for worker in busy], _SECONDS_BETWEEN_LOOKS)
            for worker in busy:
                if worker.process.connection in ready or worker.process.has_died():
                    ended.append(self._receive(worker))
        return ended

    def _receive(self, worker: _Worker) -> tuple[Task, Exception | None]:
        task, worker.task = worker.task, None
        assert task is not None
        answer = worker.process.answer()
        if answer is not None:
            return task, None if answer["failure"] is None else raisable(answer["failure"])
        self._remove(worker)
        reason = worker.process.describe_exit()
        return task, StageError(f"{task}: {reason}; the same command continues there")

    def _idle(self) -> _Worker | None:
        for worker in [worker for worker in self._workers if worker.task is None]:
            if not worker.process.has_died():
                return worker
            self._remove(worker)
        return None

    def _remove(self, worker: _Worker) -> None:
        worker.end()
        self._workers.remove(worker)

    def _start(self) -> _Worker:
        process = PipedProcess(self._module, output=subprocess.PIPE)
        process.send(self._opening)
        streams = ((process.popen.stdout, sys.stdout), (process.popen.stderr, sys.stderr))
        forwarders = [threading.Thread(target=self._forward, args=pair, daemon=True) for pair in streams]
        for forwarder in forwarders:
            forwarder.start()
        worker = _Worker(process, forwarders)
        self._workers.append(worker)
        return worker

    def _forward(self, source: IO[bytes], target: TextIO) -> None:
        """Hands on a worker's lines, a whole one at a time."""
        with source:
            for line in source:
                with self.speaking:
                    target.write(line.decode(errors="replace").rstrip("\n") + "\n")
                    target.flush()
