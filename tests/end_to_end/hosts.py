"""Two hosts that type `megasbp run --launcher torchrun`, as two process trees of this one."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from commands import environment, megasbp_command


class Hosts:
    """Starts the same command as host 0 and host 1; use as a context, which leaves no process behind."""

    def __init__(self, recipe: Path, log: Path, *arguments: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            endpoint = f"127.0.0.1:{free.getsockname()[1]}"
        self._command = megasbp_command(
            "run", str(recipe), "--launcher", "torchrun", "--rdzv-endpoint", endpoint, *arguments
        )
        self._log = log
        self._running: dict[int, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> "Hosts":
        for host in (0, 1):
            self.start(host)
        return self

    def __exit__(self, *_: object) -> None:
        for host in (0, 1):
            if self._running[host].poll() is None:
                self.lose(host)

    def start(self, host: int) -> None:
        """Types the command on a host."""
        with open(f"{self._log}-{host}", "ab") as output:
            self._running[host] = subprocess.Popen(
                [*self._command, "--node-rank", str(host)], env=environment(), stdout=output, stderr=output
            )

    def lose(self, host: int) -> None:
        """SIGKILLs the host's agent and all that it has started, as when its power goes."""
        tree = process_tree(self._running[host].pid)
        for process in tree:
            os.kill(process, signal.SIGKILL)
        self._running[host].wait()

    def wait(self, seconds: float) -> None:
        """Returns when both have ended well."""
        end = time.monotonic() + seconds
        for host in (0, 1):
            status = self._running[host].wait(timeout=max(1.0, end - time.monotonic()))
            assert status == 0, Path(f"{self._log}-{host}").read_text()[-4000:]

    def wait_until(self, condition: Callable[[], bool], seconds: float) -> None:
        """Returns when something has happened while both still run."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "it did not happen in time"
            for host in (0, 1):
                assert self._running[host].poll() is None, Path(f"{self._log}-{host}").read_text()[-4000:]
            time.sleep(0.05)


def process_tree(root: int) -> list[int]:
    """A process and all its descendants. torchrun gives each rank a session of its own, but not a parent."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                # The name, in brackets, may hold spaces.
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
    tree = [root]
    for process in tree:
        tree += [child for child, parent in parents.items() if parent == process]
    return tree
