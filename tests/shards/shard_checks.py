"""What the tests of both engines share."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import shard_work

import megasbp
from megasbp.shards.config import ShardsConfig
from megasbp.shards.engine import run_shards
from megasbp.shards.job import Work
from megasbp.storage import MANIFEST_NAME, Manifest

HERE = Path(__file__).parent


def run(
    work: Work,
    shards: Any,
    folder: Path,
    settings: dict[str, Any] | None = None,
    *,
    inputs: dict[str, str] | None = None,
    paths: Any = None,
    lines: list[str] | None = None,
    lasting: bool = True,
    **config: Any,
) -> list[Manifest]:
    config = {"workers": 2} | config
    return run_shards(
        work,
        shards,
        folder,
        settings=settings or {},
        inputs=inputs or {},
        paths=paths,
        config=ShardsConfig(**config),
        lasting=lasting,
        announce=None if lines is None else lines.append,
    )


def all_bytes(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def environment() -> dict[str, str]:
    """Of a script that finds the package and the modules here."""
    places = [str(Path(megasbp.__file__).parents[1]), str(HERE)]
    return os.environ | {"PYTHONPATH": os.pathsep.join(places), "OMP_NUM_THREADS": "1"}


def is_alive(process: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


def wait_until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def go_on_after_kill_9(tmp_path: Path, marks: Path, engine: str, seconds: float) -> None:
    """Kills a run's main process, and has another run finish its work: nothing lost, nothing redone."""
    folder = tmp_path / "out"
    script = str(HERE / "shards_driver.py")
    driver = subprocess.Popen(
        [sys.executable, script, engine, str(folder), str(marks), str(seconds)],
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_until(lambda: len(published(folder)) >= 4)
    driver.kill()
    driver.wait()
    # The workers end by themselves, in the middle of a shard.
    workers = {int(mark.name.split("-")[1]) for mark in marks.iterdir()}
    wait_until(lambda: not any(is_alive(worker) for worker in workers))
    whole = published(folder)
    assert 4 <= len(whole) < 12
    begun = len(list(marks.iterdir()))

    run(shard_work.mark, range(12), folder, {"seconds": seconds}, paths={"marks": marks}, workers=3)
    assert len(list(marks.iterdir())) - begun == 12 - len(whole)
    assert sorted(os.listdir(folder)) == [f"shard-{shard:06d}" for shard in range(12)]
    run(
        shard_work.mark,
        range(12),
        tmp_path / "again",
        {"seconds": seconds},
        paths={"marks": marks},
        workers=3,
    )
    assert all_bytes(folder) == all_bytes(tmp_path / "again")


def published(folder: Path) -> set[str]:
    return {path.parent.name for path in folder.glob(f"shard-??????/{MANIFEST_NAME}")}
