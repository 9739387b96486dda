"""SIGKILL at any moment: the same command continues and ends as if nothing had happened."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from killed_run import saving_job
from training_world import read_metrics, training_job

from megasbp.parallel.runtime import Runtime
from megasbp.storage import read_manifest
from megasbp.training.checkpoint_files import checkpoint_folder, checkpoint_steps
from megasbp.training.job import TrainingJob
from megasbp.training.metrics import TIME_FIELDS
from megasbp.training.trainer import train

HERE = Path(__file__).resolve().parent


def outcome(folder: Path) -> dict[str, object]:
    """Everything that a finished job left behind, but times."""
    checkpoints = folder / "checkpoints"
    rows = [
        {key: value for key, value in row.items() if key not in TIME_FIELDS} for row in read_metrics(folder)
    ]
    return {
        "result": (folder / "result.json").read_bytes(),
        "job": (folder / "job.json").read_bytes(),
        "metrics": rows,
        "checkpoints": {
            step: read_manifest(checkpoint_folder(checkpoints, step), check="hashes").files
            for step in checkpoint_steps(checkpoints)
        },
        "names": sorted(path.name for path in [*folder.iterdir(), *checkpoints.iterdir()]),
    }


def outcome_uninterrupted(job: TrainingJob) -> dict[str, object]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        train(job, Runtime.start())
    finally:
        torch.set_num_threads(threads)
    return outcome(Path(job.folder))


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    return outcome_uninterrupted(training_job(tmp_path_factory.mktemp("uninterrupted")))


def run_killed(folder: Path, *arguments: object) -> int:
    command = [sys.executable, str(HERE / "killed_run.py"), str(folder), *map(str, arguments)]
    path = os.pathsep.join([str(HERE.parent.parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    ended = subprocess.run(
        command, env=environment, cwd=HERE, capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return json.loads(ended.stdout)


def test_killed_at_random_moments_it_ends_like_the_uninterrupted_run(
    tmp_path: Path, uninterrupted: dict[str, object]
) -> None:
    kills = run_killed(tmp_path / "job", "moments", 3, 6)
    assert kills >= 2
    assert outcome(tmp_path / "job") == uninterrupted


def test_killed_while_writing_behind_the_training_it_ends_like_the_uninterrupted_run(tmp_path: Path) -> None:
    kills = run_killed(tmp_path / "job", "writing", 4, 20)
    assert kills == 20
    assert outcome(tmp_path / "job") == outcome_uninterrupted(saving_job(tmp_path / "uninterrupted"))


# Strides of 3 with three beginnings reach every operation; the quick one reaches every kind of them.
SWEEPS = [(1, 8), *(pytest.param(first, 3, marks=pytest.mark.slow) for first in (1, 2, 3))]


@pytest.mark.parametrize(("first", "every"), SWEEPS)
def test_killed_at_file_operations_it_ends_like_the_uninterrupted_run(
    tmp_path: Path, uninterrupted: dict[str, object], first: int, every: int
) -> None:
    kills = run_killed(tmp_path / "job", "operations", first, every)
    assert kills >= 5
    assert outcome(tmp_path / "job") == uninterrupted
