"""Stage functions of the tests: importable by the workers, as every stage function must be."""

import hashlib
import os
import signal
import time
from pathlib import Path
from typing import Any

from megasbp.errors import InputError
from megasbp.shards.job import Job
from megasbp.shards.publication import partial_folder, publish_once


def write_numbers(shard: int, folder: Path, *, size: int, seconds: float = 0.0) -> dict[str, Any]:
    """Two files that depend on the shard and the size."""
    time.sleep(seconds)
    data = hashlib.sha256(f"{shard} {size}".encode()).digest() * size
    (folder / "data.bin").write_bytes(data)
    (folder / "deeper").mkdir()
    (folder / "deeper" / "name.txt").write_text(f"shard {shard}")
    return {"bytes": len(data)}


def mark(shard: int, folder: Path, *, marks: Path, seconds: float = 0.0) -> None:
    """Leaves one file per attempt in `marks`, named by shard and process; the bytes do not show it."""
    (folder / "data.bin").write_bytes(hashlib.sha256(str(shard).encode()).digest() * 2048)
    (marks / f"{shard}-{os.getpid()}-{time.monotonic_ns()}").touch()
    time.sleep(seconds)


def die(shard: int, folder: Path, *, victim: int, times: int, marks: Path) -> None:
    """The worker is killed on one shard, so many times, with a half-written file in its folder."""
    (folder / "data.txt").write_text("half")
    if shard == victim and len(list(marks.iterdir())) < times:
        (marks / str(time.monotonic_ns())).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    (folder / "data.txt").write_text(f"whole {shard}")


def die_with_a_child(shard: int, folder: Path, *, marks: Path) -> None:
    """The first attempt is killed while a child that it forked holds every pipe open."""
    if not any(marks.iterdir()):
        child = os.fork()
        if child == 0:
            time.sleep(30)
            os._exit(0)
        (marks / str(child)).touch()
        os.kill(os.getpid(), signal.SIGKILL)


def fail(shard: int, folder: Path, *, victim: int, kind: str, marks: Path) -> None:
    """Raises on one shard."""
    (marks / f"{shard}-{time.monotonic_ns()}").touch()
    if shard == victim:
        if kind == "mistake":
            raise InputError("part-3.jsonl: line 7 is not JSON")
        if kind == "full":
            # As a library may do: the system's error is only the cause of its own.
            try:
                Path("/dev/full").write_text("text")
            except OSError as error:
                raise RuntimeError("cannot write") from error
        if kind == "exit":
            raise SystemExit(0)
        raise KeyError("column")


def fail_once(shard: int, folder: Path, *, marks: Path) -> None:
    """Fails the first time."""
    mark = marks / str(shard)
    if not mark.exists():
        mark.touch()
        raise OSError("the network is away")


def show_environment(shard: int, folder: Path, *, corpus: Path, parts: list[Path]) -> dict[str, Any]:
    """Its environment, as facts."""
    return {
        "threads": os.environ["OMP_NUM_THREADS"],
        "gpus": os.environ["CUDA_VISIBLE_DEVICES"],
        "corpus": corpus.read_text(),
        "parts": [part.name for part in parts],
    }


def overtaken(shard: int, folder: Path, *, same: bool, run: Path) -> None:
    """Before it ends, another worker publishes the same shard: with the same bytes or with others."""
    (folder / "data.txt").write_text("mine")
    token = (run / ".lock").read_text().partition("\n")[2]
    rival = Job("shard_work:overtaken", str(run), {}, {"same": same}, {"run": str(run)}, token)
    with partial_folder(rival, shard) as partial:
        (partial / "data.txt").write_text("mine" if same else "other")
        publish_once(rival, shard, partial, {})


def lose_the_folder(shard: int, folder: Path, *, run: Path) -> None:
    """While it works, another run takes the folder over."""
    (run / ".lock").write_text("process 1 on elsewhere\nanother token")


def interrupt(shard: int, folder: Path) -> None:
    """Ctrl-C in the middle of a shard."""
    (folder / "data.txt").write_text("half")
    raise KeyboardInterrupt
