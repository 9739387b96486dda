import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import shard_work
from shard_checks import HERE, all_bytes, environment, go_on_after_kill_9, run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs ray (pip install .[ray])"),
]


def drive(script: str, *arguments: str | Path) -> Any:
    result = subprocess.run(
        [sys.executable, str(HERE / script), *map(str, arguments)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-4000:]
    return json.loads(result.stdout.splitlines()[-1])


@pytest.fixture
def marks(tmp_path: Path) -> Path:
    folder = tmp_path / "marks"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("failure", ["killed", "frozen"])
def test_a_lost_node_changes_no_byte(tmp_path: Path, marks: Path, failure: str) -> None:
    lines = drive("ray_driver.py", tmp_path / "ray", marks, failure)
    (event,) = [line for line in lines if line.startswith(failure)]
    shard = int(event.split()[2].rstrip(","))
    assert any(line.startswith(f"mark: shard {shard}: its worker was lost (") for line in lines)
    assert len(list(marks.glob(f"{shard}-*"))) == 2
    assert sorted(os.listdir(tmp_path / "ray")) == [f"shard-{shard:06d}" for shard in range(16)]

    run(shard_work.mark, range(16), tmp_path / "local", {"seconds": 0.5}, paths={"marks": marks}, workers=8)
    assert all_bytes(tmp_path / "ray") == all_bytes(tmp_path / "local")


def test_a_cluster_of_its_own_redoes_stops_and_keeps_to_itself(tmp_path: Path, marks: Path) -> None:
    result = drive("ray_alone_driver.py", tmp_path, marks)
    assert any(line.startswith("die: shard 3: its worker was lost (") for line in result["lines"])
    assert (tmp_path / "die" / "shard-000003" / "data.txt").read_text() == "whole 3"
    assert result["mistake"] == "shard 1: part-3.jsonl: line 7 is not JSON"
    assert result["loopback"]
    assert result["others"] == []
    assert result["usage statistics"] is False
    assert result["environment"]["threads"] == "3"
    assert result["environment"]["gpus"] == ""


def test_a_run_on_ray_goes_on_after_kill_9_of_the_main_process(tmp_path: Path, marks: Path) -> None:
    go_on_after_kill_9(tmp_path, marks, "ray", seconds=0.5)
