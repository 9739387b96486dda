"""Four ranks write, lose and find checkpoints; what happens is left for test_checkpoint_ranks.py.

Usage: python checkpoint_cases.py FOLDER
"""

import errno
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from launch import fork_ranks
from training_world import training_job

from megasbp.parallel.runtime import Runtime
from megasbp.training import checkpoint_files, shard_writer
from megasbp.training.checkpoint import load_tensors, save_checkpoint
from megasbp.training.checkpoint_files import checkpoint_steps, newest_checkpoint
from megasbp.training.job import TrainingJob
from megasbp.training.trainer import train

RANKS = 4
# Its checkpoint cannot be written on one rank.
BROKEN_STEP = 8


def job_of(folder: Path) -> TrainingJob:
    """Twelve steps and a checkpoint after every second one, all of them kept."""
    training = {"global_batch": 8, "micro_batch": 2, "checkpoints": 6, "keep_checkpoints": 6}
    return training_job(folder, training=training, steps=12, validation=None)


@contextmanager
def noted(module: Any, function: str) -> Iterator[list[str]]:
    """The names of the files that a function of `module` is called with, in the order of the calls."""
    names: list[str] = []
    original = getattr(module, function)

    def call(path: Path, *arguments: Any) -> Any:
        names.append(path.name)
        return original(path, *arguments)

    with mock.patch.object(module, function, call):
        yield names


@contextmanager
def broken_write(what: Callable[[], None]) -> Iterator[None]:
    """`what` happens on the third rank in the middle of its part of the checkpoint of BROKEN_STEP."""
    original = shard_writer.write_safetensors

    def write(path: Path, *arguments: Any) -> str:
        digest = original(path, *arguments)
        if path.parent.name.startswith(f"step-{BROKEN_STEP:08d}") and "shard-00003" in path.name:
            os.truncate(path, path.stat().st_size // 2)
            what()
        return digest

    with mock.patch.object(shard_writer, "write_safetensors", write):
        yield


def fill_the_disk() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def gathered(runtime: Runtime, value: Any) -> list[Any]:
    """Every rank's `value`, on every rank."""
    values: list[Any] = [None] * runtime.world_size
    torch.distributed.all_gather_object(values, value)
    return values


def shared_work(runtime: Runtime, folder: Path) -> dict[str, Any]:
    """What each rank writes and hashes when a checkpoint is saved, and when it is looked for."""
    job = job_of(folder / "uninterrupted")
    with noted(shard_writer, "write_safetensors") as written:
        train(job, runtime)
    with noted(checkpoint_files, "hash_file") as checked:
        newest = newest_checkpoint(job.folder / "checkpoints", runtime)
    return {
        "written": gathered(runtime, sorted(set(written))),
        "checked": gathered(runtime, checked),
        "newest": gathered(runtime, newest and newest.name),
        "files": sorted(path.name for path in newest.iterdir()) if newest else [],
    }


def full_disk(runtime: Runtime, folder: Path) -> dict[str, Any]:
    """The disk of one rank is full behind the training; then it is not any more."""
    job, codes = job_of(folder / "full"), []
    with broken_write(fill_the_disk):
        try:
            train(job, runtime)
        except OSError as error:
            codes = gathered(runtime, error.errno)
    runtime.barrier()
    left = sorted(path.name for path in (job.folder / "checkpoints").iterdir())
    runtime.barrier()
    train(job, runtime)
    return {"codes": codes, "left": left}


def different_tensors(runtime: Runtime, folder: Path) -> list[bool]:
    """Ranks whose tensors have other names, as those of a pipeline; one tensor all of them hold."""
    own = {
        f"model.{runtime.rank}": torch.full((3, 2), float(runtime.rank)),
        "model.shared": torch.arange(5.0),
    }
    save_checkpoint(folder / "different", own, {}, runtime)
    found = {name: torch.zeros_like(tensor) for name, tensor in own.items()}
    load_tensors(folder / "different", found, runtime)
    return gathered(runtime, all(torch.equal(found[name], tensor) for name, tensor in own.items()))


def first_launch(folder: Path) -> None:
    runtime = Runtime.start()
    facts = {
        "shared work": shared_work(runtime, folder),
        "full disk": full_disk(runtime, folder),
        "different": different_tensors(runtime, folder),
    }
    if runtime.is_main:
        (folder / "facts.json").write_text(json.dumps(facts))
    runtime.close()


def killed_launch(folder: Path) -> None:
    with broken_write(lambda: os.kill(os.getpid(), signal.SIGKILL)):
        train(job_of(folder / "killed"), Runtime.start())


def last_launch(folder: Path) -> None:
    runtime = Runtime.start()
    train(job_of(folder / "killed"), runtime)
    runtime.close()


if __name__ == "__main__":
    target = Path(sys.argv[1])
    fork_ranks(first_launch, RANKS, target)
    try:
        fork_ranks(killed_launch, RANKS, target)
    except RuntimeError:
        (target / "steps-after-kill.json").write_text(
            json.dumps(sorted(checkpoint_steps(target / "killed" / "checkpoints")))
        )
    fork_ranks(last_launch, RANKS, target)
