"""A process of this machine that is told what to do, one JSON message after the other, on a pipe of its own.

Not `concurrent.futures` (one dead worker breaks the whole pool) nor `multiprocessing` (its workers run the
main script again, so a script that imports torch pays for it in each, and they inherit the environment, so
that threads cannot be bounded before the libraries load). It is a plain `python -c`, started with its own
environment in a process group of its own, so that its children die with it and Ctrl-C reaches only the main
process.
"""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe
from typing import Any

_START = (
    "import importlib, json, sys; sys.path[:] = json.loads(sys.argv[3]); "
    "importlib.import_module(sys.argv[1]).serve(int(sys.argv[2]))"
)


class PipedProcess:
    """A process as the main one sees it.

    Args:
        module: its `serve` is called with the descriptor of the pipe.
        environment: replaces this process's.
        output: what its stdout and stderr are, as of `subprocess.Popen`; None for this process's.

    Attributes:
        connection: the pipe.
        popen: the process.
    """

    def __init__(
        self, module: str, environment: Mapping[str, str] | None = None, output: int | None = None
    ) -> None:
        self.connection, theirs = Pipe()
        search = [entry or os.getcwd() for entry in sys.path]
        with theirs:
            self.popen = subprocess.Popen(
                [sys.executable, "-u", "-c", _START, module, str(theirs.fileno()), json.dumps(search)],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=[theirs.fileno()],
                process_group=0,
            )

    def send(self, message: Any) -> None:
        """Sends what JSON can say. That it has died shows when its answer is looked for."""
        with suppress(OSError):
            self.connection.send_bytes(json.dumps(message).encode())

    def has_died(self) -> bool:
        """A dead process's pipe stays open while a child that it forked lives, so this looks at itself."""
        return self.popen.poll() is not None

    def answer(self) -> Any | None:
        """Its answer, where one is there; None where it has died, and it is ended then."""
        try:
            if self.connection.poll():
                return json.loads(self.connection.recv_bytes())
        except (EOFError, OSError):
            pass
        self.end()
        return None

    def end(self) -> None:
        """Kills what is left of its process group and waits for it."""
        with suppress(ProcessLookupError):
            os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait()
        self.connection.close()

    def describe_exit(self) -> str:
        """How it ended."""
        code = self.popen.returncode
        if code == -signal.SIGKILL:
            return "its worker was killed (SIGKILL; out of memory?)"
        if code < 0:
            return f"its worker was killed ({signal.Signals(-code).name})"
        return f"its worker ended with status {code}"


class MainProcess:
    """The main process as one that it started sees it. When it is gone, this whole process group dies.

    Args:
        descriptor: of the pipe.
    """

    def __init__(self, descriptor: int) -> None:
        self._connection = Connection(descriptor)
        self._messages: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        # In a thread of its own, so that the end of the main process is seen in the middle of work.
        threading.Thread(target=self._listen, daemon=True).start()

    def receive(self) -> Any:
        """The next message, waited for."""
        return json.loads(self._messages.get())

    def send(self, answer: Any) -> None:
        """Answers it."""
        self._connection.send_bytes(json.dumps(answer).encode())

    def _listen(self) -> None:
        try:
            while True:
                self._messages.put(self._connection.recv_bytes())
        except (EOFError, OSError):
            os.killpg(os.getpgrp(), signal.SIGKILL)
