"""Baselines at SBP's operations, added to a finished run: nothing else is made again."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from commands import environment, megasbp_command

from megasbp.experiment.budget import EQUAL_FLOPS_ARMS


def test_equal_operations_are_added_to_a_finished_run(finished_run: Path, tmp_path: Path) -> None:
    shutil.copytree(finished_run / "runs", tmp_path / "runs")
    settings = (f"runs={tmp_path / 'runs'}", "budget.equal_flops=true")
    done = subprocess.run(
        megasbp_command("run", str(finished_run / "small.toml"), *settings),
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    made = re.findall(r"seed-0/(\S+): started", done.stdout)
    stages = ("train", "losses", "losses-best")
    assert sorted(made) == sorted(f"{stage}-{arm}" for stage in stages for arm in EQUAL_FLOPS_ARMS)
    results = json.loads((tmp_path / "runs" / "small" / "report" / "results.json").read_text())
    sbp = results["arms"]["sbp"]["ledger"]
    for arm, reading in EQUAL_FLOPS_ARMS.items():
        own = results["arms"][arm]
        # Less than one of some hundred steps is left over.
        assert own["ledger"]["total_flops_counted"] == pytest.approx(sbp[f"total_flops_{reading}"], rel=1e-2)
        assert own["plan"]["steps"] > results["arms"]["baseline"]["plan"]["steps"]
        assert results["contrasts"][f"sbp vs {arm}"]["role"] == "descriptive"
    assert "Third view" in done.stdout
