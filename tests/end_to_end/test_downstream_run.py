"""Downstream tasks added to a finished run: nothing else is made again, and a kill changes no byte."""

import json
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest
from commands import environment, megasbp_command, published
from kills import run_and_kill
from small_run import write_recipe
from task_files import write_task_files

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        find_spec("lm_eval") is None or find_spec("accelerate") is None,
        reason="needs lm-eval (pip install .[eval])",
    ),
]
TASKS = ["megasbp_lambada", "megasbp_arc_easy", "megasbp_mmlu"]
ARMS = ["baseline", "sbp", "self_samples", "random_pairs", "oracle", "baseline_x2"]


def command(folder: Path, finished_run: Path, corpus: Path, data: Path) -> list[str]:
    """Runs a copy of the finished run with these tasks."""
    shutil.copytree(finished_run / "runs", folder / "runs")
    section = f"evaluation.downstream={{tasks={json.dumps(TASKS)}, data={json.dumps(str(data))}}}"
    return megasbp_command("run", str(write_recipe(folder, corpus)), section)


def offline() -> dict[str, str]:
    return {**environment(), "HF_HUB_OFFLINE": "1"}


@pytest.mark.timeout(900)
def test_tasks_are_added_to_a_finished_run(finished_run: Path, corpus: Path, tmp_path: Path) -> None:
    data = write_task_files(tmp_path / "eval")
    run = command(tmp_path / "whole", finished_run, corpus, data)
    done = subprocess.run(run, env=offline(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    started = {line.partition(":")[0] for line in done.stdout.splitlines() if line.endswith(": started")}
    assert started == {f"seed-0/downstream-{arm}" for arm in ARMS}
    # The bars of the libraries stay out of the run's own lines.
    assert "it/s]" not in done.stderr

    before = json.loads(published(finished_run / "runs" / "small")["results.json"])
    after = json.loads(published(tmp_path / "whole" / "runs" / "small")["results.json"])
    found = after.pop("downstream")
    assert set(found["tasks"]) == set(TASKS)
    assert set(found["tasks"]["megasbp_mmlu"]["measures"]["acc"]) == set(ARMS)
    for part in ("recipe", "recipe_hash"):
        assert before.pop(part) != after.pop(part)
    assert after == before

    killed = command(tmp_path / "killed", finished_run, corpus, data)
    kills = run_and_kill(killed, [14.0], offline(), tmp_path / "output.txt")
    subprocess.run(killed, env=offline(), capture_output=True, check=True)
    assert kills == 1, "the run ended before it could be killed"
    assert published(tmp_path / "killed" / "runs" / "small") == published(
        tmp_path / "whole" / "runs" / "small"
    )
