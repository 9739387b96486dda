"""`cluster_corpus` on the engines: what dies, fills up or is started again changes no byte."""

import errno
import importlib.util
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from test_corpus_clusters import planted_corpus

import megasbp
from megasbp.data.array_file import ArrayFile
from megasbp.errors import InputError
from megasbp.overlap import corpus_clusters
from megasbp.overlap.corpus_clusters import cluster_corpus, load_clusters, remove_steps
from megasbp.shards.config import INLINE, ShardsConfig

SETTINGS = {"width": 5, "threshold": 0.7, "seed": 1, "announce": None}
DRIVER = Path(__file__).with_name("cluster_driver.py")


@pytest.fixture
def datasets(write_shards) -> list[Path]:
    return write_shards(planted_corpus(3), bounds=(80, 81, 200))


@pytest.fixture
def inline(datasets, tmp_path) -> dict[str, bytes]:
    """Every file of a run in this process."""
    cluster_corpus(datasets, tmp_path / "inline", shards=INLINE, **SETTINGS)
    return all_bytes(tmp_path / "inline")


def all_bytes(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def wait_until(condition) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def start_driver(engine: str, parts: int, folder: Path, datasets: list[Path]) -> subprocess.Popen:
    places = os.pathsep.join([str(Path(megasbp.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, str(DRIVER), engine, str(parts), str(folder), *map(str, datasets)],
        env=os.environ | {"PYTHONPATH": places},
        stdout=subprocess.DEVNULL,
    )


def test_a_killed_worker_changes_no_byte(datasets, tmp_path, inline):
    lines: list[str] = []

    def kill_a_worker() -> None:
        children = Path(f"/proc/{os.getpid()}/task/{threading.main_thread().native_id}/children")
        wait_until(lambda: (tmp_path / "local" / "candidates" / ".lock").exists() and children.read_text())
        os.kill(int(children.read_text().split()[0]), signal.SIGKILL)

    killer = threading.Thread(target=kill_a_worker)
    killer.start()
    config = ShardsConfig(engine="local", workers=2)
    settings = SETTINGS | {"announce": lines.append}
    cluster_corpus(datasets, tmp_path / "local", shards=config, **settings)
    killer.join()

    assert any("its worker was killed (SIGKILL" in line for line in lines)
    assert all_bytes(tmp_path / "local") == inline


def test_a_run_goes_on_after_kill_9(datasets, tmp_path, monkeypatch):
    candidates = tmp_path / "out" / "candidates"
    process = start_driver("local", 40, tmp_path / "out", datasets)
    wait_until(lambda: len(list(candidates.glob("shard-??????"))) >= 3)
    process.kill()
    process.wait()
    finished = {path: path.stat().st_mtime_ns for path in candidates.glob("shard-??????/manifest.json")}
    assert 3 <= len(finished) < 25 * 40
    # As a kill in the last step leaves it.
    (tmp_path / "out" / "clusters.partial-1").mkdir()
    monkeypatch.setattr(corpus_clusters, "parts_for", lambda documents, memory: 40)

    for folder in ("out", "again"):
        cluster_corpus(datasets, tmp_path / folder, **SETTINGS)

    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert all_bytes(tmp_path / "out") == all_bytes(tmp_path / "again")


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs ray (pip install .[ray])")
def test_a_ray_cluster_gives_the_same_bytes(datasets, tmp_path, inline):
    with start_driver("ray", 1, tmp_path / "ray", datasets) as process:
        try:
            assert process.wait(250) == 0
        finally:
            process.kill()

    assert all_bytes(tmp_path / "ray") == inline


@pytest.mark.parametrize("step", ("candidates", "verified"))
def test_a_full_disk_is_named_and_finished_steps_stay(datasets, tmp_path, monkeypatch, inline, step):
    folder = tmp_path / "out"
    append = ArrayFile.append

    def full(file: ArrayFile, values) -> None:
        if (folder / step).exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        append(file, values)

    monkeypatch.setattr(ArrayFile, "append", full)
    with pytest.raises(InputError, match=rf"shard 0: no space left for {folder / step} .* run again"):
        cluster_corpus(datasets, folder, **SETTINGS)
    before = all_bytes(folder)
    monkeypatch.undo()
    cluster_corpus(datasets, folder, **SETTINGS)

    assert before.items() <= inline.items()
    assert any(name.startswith("signatures/shard-000003/") for name in before)
    assert all_bytes(folder) == inline


def test_finished_clusters_are_found_again_without_the_steps(datasets, tmp_path, inline):
    folder = tmp_path / "inline"
    remove_steps(folder)

    facts = cluster_corpus(datasets, folder, **SETTINGS)

    assert facts["documents"] == len(load_clusters(folder))
    assert sorted(path.name for path in folder.iterdir()) == ["clusters"]


@pytest.mark.parametrize(
    ("change", "said"),
    (
        ({"threshold": 0.8}, "made with threshold 0.7, now 0.8"),
        ({"datasets": 1}, "made with datasets [0-9a-f]+"),
    ),
)
def test_clusters_of_something_else_are_refused(datasets, tmp_path, inline, change, said):
    others = datasets[: change.pop("datasets", None)]

    with pytest.raises(InputError, match=f"clusters: {said}.*use another folder, or remove"):
        cluster_corpus(others, tmp_path / "inline", **(SETTINGS | change))


def test_damaged_clusters_are_named(datasets, tmp_path, inline):
    (tmp_path / "inline" / "clusters" / "clusters.npy").write_bytes(b"short")

    with pytest.raises(InputError, match="clusters: does not hold what its manifest says; remove"):
        cluster_corpus(datasets, tmp_path / "inline", **SETTINGS)
