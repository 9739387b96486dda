import os
from pathlib import Path
from typing import Any

import pytest
import shard_work
from shard_checks import all_bytes, run

from megasbp.errors import InputError, ShardError
from megasbp.shards.config import INLINE, ShardsConfig
from megasbp.shards.engine import run_shards


@pytest.fixture
def marks(tmp_path: Path) -> Path:
    folder = tmp_path / "marks"
    folder.mkdir()
    return folder


def run_inline(work: Any, shards: Any, folder: Path, settings: Any = None, **arguments: Any) -> Any:
    return run_shards(
        work, shards, folder, settings=settings or {}, inputs={}, config=INLINE, announce=None, **arguments
    )


def test_bytes_are_those_of_local_workers(tmp_path: Path) -> None:
    manifests = run_inline(shard_work.write_numbers, [4, 0, 2], tmp_path / "inline", {"size": 5})
    others = run(shard_work.write_numbers, [4, 0, 2], tmp_path / "local", {"size": 5})
    assert manifests == others
    assert all_bytes(tmp_path / "inline") == all_bytes(tmp_path / "local")


def test_work_is_done_in_this_process(tmp_path: Path, marks: Path) -> None:
    run_inline(shard_work.mark, range(3), tmp_path / "out", paths={"marks": marks})
    assert sorted(mark.name.rpartition("-")[0] for mark in marks.iterdir()) == [
        f"{shard}-{os.getpid()}" for shard in range(3)
    ]


def test_one_engine_goes_on_where_the_other_stopped(tmp_path: Path, marks: Path) -> None:
    run(shard_work.mark, [0, 1], tmp_path / "out", paths={"marks": marks})
    run_inline(shard_work.mark, range(3), tmp_path / "out", paths={"marks": marks})
    assert sorted(mark.name[0] for mark in marks.iterdir()) == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("kind", "error", "said", "begun"),
    [
        ("mistake", InputError, r"^shard 1: part-3\.jsonl: line 7 is not JSON$", 1),
        ("full", InputError, r"shard 1: no space left for .*; free some and run again", 1),
        ("error", ShardError, "shard 1: KeyError: 'column'; given up after 3 attempts\nTraceback", 3),
    ],
)
def test_failures_are_named_as_on_the_other_engines(
    tmp_path: Path, marks: Path, kind: str, error: type[Exception], said: str, begun: int
) -> None:
    with pytest.raises(error, match=said):
        run_inline(
            shard_work.fail, range(3), tmp_path / "out", {"victim": 1, "kind": kind}, paths={"marks": marks}
        )
    assert sum(mark.name.startswith("1-") for mark in marks.iterdir()) == begun
    assert os.listdir(tmp_path / "out") == ["shard-000000"]


def test_an_interrupt_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_inline(shard_work.interrupt, [0], tmp_path / "out")
    assert os.listdir(tmp_path / "out") == []


def test_settings_of_workers_are_refused() -> None:
    with pytest.raises(ValueError, match='shards.gpus is 1.0 and shards.engine is "inline"'):
        ShardsConfig(engine="inline", gpus=1)
