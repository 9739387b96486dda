"""tools/launch_3b.sh, which the README shows: what it would start."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def launch(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(ROOT / "tools" / "launch_3b.sh"), "--python", sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_dry_run_shows_every_stage_on_its_hosts_and_starts_nothing() -> None:
    done = launch("--nodes", "2", "--launcher", "torchrun", "--dry-run")
    assert done.returncode == 0, done.stderr
    shapes = dict(line.split(": ")[:2] for line in done.stdout.splitlines())
    assert shapes["corpus"] == shapes["seed-0/synthesis-sbp"] == "one process"
    assert shapes["seed-0/train-sbp"] == shapes["seed-0/synthesizer-true"] == "2 x 8 ranks"
    assert shapes["seed-0/losses"] == "1 x 8 ranks"
    assert list(shapes)[-1] == "report"


def test_hosts_that_do_not_divide_the_batch_are_refused_before_anything_is_queued() -> None:
    done = launch("--nodes", "3", "--dry-run")
    assert done.returncode == 2
    assert "cluster.training: global_batch is 2048, not a multiple of micro_batch 8 x 24 ranks" in done.stderr


def test_an_option_without_its_value_is_refused() -> None:
    done = launch("--nodes")
    assert done.returncode == 2
    assert "--nodes needs a value" in done.stderr
