"""Trains one job in children that are killed: at random moments, while they write, or at a file operation.

    python killed_run.py FOLDER moments SEED KILLS
    python killed_run.py FOLDER writing SEED KILLS
    python killed_run.py FOLDER operations FIRST EVERY

Prints as JSON how often a child was killed. One process imports torch; the children are forks of it, made
before it has run a single operation, so each starts at once and none inherits a thread.
"""

import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch._dynamo  # optimisers import it at first use, which would take each child a second
from training_world import training_job

from megasbp.parallel.runtime import Runtime
from megasbp.training import checkpoint_writer
from megasbp.training.job import TrainingJob
from megasbp.training.trainer import train

MAXIMUM_STARTS = 60


def saving_job(folder: Path) -> TrainingJob:
    """Long enough to be killed often while it writes: a checkpoint a step."""
    return training_job(folder, steps=60, training={"checkpoints": 60})


def start_child(
    folder: Path, prepare: Callable[[], None], job_of: Callable[[Path], TrainingJob] = training_job
) -> int:
    child = os.fork()
    if child == 0:
        try:
            torch.set_num_threads(1)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            prepare()
            train(job_of(folder), Runtime.start())
            os._exit(0)
        except BaseException as error:
            print(repr(error), flush=True)
            os._exit(1)
    return child


def was_killed(child: int) -> bool:
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return True
    assert os.WEXITSTATUS(status) == 0, "a child failed by itself"
    return False


def kill_at_moments(folder: Path, seed: int, kills: int) -> int:
    # Machines differ by more than the moments: each is a share of the time that this one takes.
    start = time.monotonic()
    assert not was_killed(start_child(folder.with_name("timed"), lambda: None))
    whole = time.monotonic() - start
    random = np.random.Generator(np.random.Philox(key=seed))
    for killed in range(kills):
        child = start_child(folder, lambda: None)
        time.sleep(random.uniform(0.1, 0.45) * whole)
        os.kill(child, signal.SIGKILL)
        if not was_killed(child):
            return killed
    assert not was_killed(start_child(folder, lambda: None))
    return kills


def kill_while_writing(folder: Path, seed: int, kills: int) -> int:
    """Kills each start while its second or third checkpoint is written behind the training."""
    random = np.random.Generator(np.random.Philox(key=seed))
    save = checkpoint_writer.save_checkpoint

    def arm(written: int, share: float) -> None:
        seconds: list[float] = []

        def timed(*arguments: Any) -> None:
            if len(seconds) == written:
                # A share of what the checkpoint before took.
                threading.Timer(share * seconds[-1], os.kill, (os.getpid(), signal.SIGKILL)).start()
            start = time.monotonic()
            save(*arguments)
            seconds.append(time.monotonic() - start)

        checkpoint_writer.save_checkpoint = timed

    for killed in range(kills):
        written, share = int(random.integers(1, 3)), random.uniform(0, 1)
        child = start_child(folder, lambda written=written, share=share: arm(written, share), saving_job)
        if not was_killed(child):
            return killed
    assert not was_killed(start_child(folder, lambda: None, saving_job))
    return kills


def kill_at_operations(folder: Path, first: int, every: int) -> int:
    """Kills the n-th start just before its operation `first + n * every` on the file system."""

    def arm(number: int) -> None:
        left = [number]

        def counted(operation: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any, **options: Any) -> Any:
                left[0] -= 1
                if left[0] < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return operation(*arguments, **options)

            return call

        for name in ("rename", "replace", "fsync", "truncate", "unlink", "mkdir", "rmdir"):
            setattr(os, name, counted(getattr(os, name)))
        shutil.rmtree = counted(shutil.rmtree)

    for start in range(MAXIMUM_STARTS):
        number = first + start * every
        if not was_killed(start_child(folder, lambda number=number: arm(number))):
            return start
    raise AssertionError("the run never ended")


if __name__ == "__main__":
    target, mode, one, two = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    modes = {"moments": kill_at_moments, "writing": kill_while_writing, "operations": kill_at_operations}
    kill = modes[mode]
    print(json.dumps(kill(target, one, two)))
