"""Starts a command again and again, and kills it each time before it can finish."""

import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path


def run_and_kill(
    command: Sequence[str], seconds: Iterable[float], environment: Mapping[str, str], log: Path
) -> int:
    """SIGKILLs the command after each of `seconds`, then leaves it unfinished.

    Returns:
        How often it was killed: fewer times than asked when it ended by itself, whatever its exit status.
    """
    kills = 0
    for pause in seconds:
        with open(log, "ab") as output:
            run = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
            time.sleep(pause)
            if run.poll() is not None:
                break
            run.send_signal(signal.SIGKILL)
            run.wait()
            kills += 1
    return kills
