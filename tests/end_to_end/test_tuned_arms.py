"""Every arm with trials of its own."""

import json
import subprocess
from pathlib import Path

import pytest
from commands import environment, megasbp_command
from small_run import write_recipe
from test_more_arms import copy_of

from megasbp.experiment.parts import parts
from megasbp.experiment.recipe import load_recipe

EACH = ("tuning.arms=each", 'budget.arms=["baseline", "sbp", "oracle"]', "budget.multiples=[]")


def test_each_arm_is_tried_at_every_setting_and_pays_for_it(
    finished_run: Path, corpus: Path, tmp_path: Path
) -> None:
    command = megasbp_command("run", str(copy_of(finished_run, corpus, tmp_path)), *EACH)
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
    started = {line.partition(":")[0] for line in done.stdout.splitlines() if line.endswith(": started")}
    assert {"seed-0/train-sbp", "seed-0/train-oracle"} <= started
    assert not started & {"seed-0/train-baseline", "seed-0/synthesizer-true", "seed-0/synthesis-sbp"}
    results = json.loads((tmp_path / "runs" / "small" / "report" / "results.json").read_text())
    tuning, arms = results["tuning"], results["arms"]
    assert set(tuning["arms"]) == {"sbp", "oracle"}
    for arm, grid in tuning["arms"].items():
        assert [trial["weight_decay"] for trial in grid["trials"]] == [0.1, 0.5]
        best = min(grid["trials"], key=lambda trial: trial["validation_loss"])
        assert grid["chosen"]["weight_decay"] == best["weight_decay"]
        assert arms[arm]["seeds"]["0"]["final_validation_loss"] == best["validation_loss"]
    # One setting beside the chosen one; the synthesizer's start was tuned as well.
    sweeps = {arm: entry["ledger"]["flops"]["sweeps"] for arm, entry in arms.items()}
    assert sweeps["oracle"] == sweeps["baseline"] > 0
    assert sweeps["sbp"] == 2 * sweeps["baseline"]


@pytest.mark.slow
def test_numbers_of_epochs_are_tried_and_an_arm_spends_what_is_best_for_it(
    finished_run: Path, corpus: Path, tmp_path: Path
) -> None:
    shares = ("tuning.budget_shares=[0.25, 1.0]", "tuning.weight_decays=[0.1]")
    command = megasbp_command("run", str(copy_of(finished_run, corpus, tmp_path)), *EACH, *shares)
    subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
    results = json.loads((tmp_path / "runs" / "small" / "report" / "results.json").read_text())
    grids = {"baseline": results["tuning"], **results["tuning"]["arms"]}
    assert set(grids) == {"baseline", "sbp", "oracle"}
    spent = {}
    for arm, grid in grids.items():
        assert [trial["budget_share"] for trial in grid["trials"]] == [0.25, 1.0]
        best = min(grid["trials"], key=lambda trial: trial["validation_loss"])
        assert grid["chosen"]["budget_share"] == best["budget_share"]
        ledger = results["arms"][arm]["ledger"]
        spent[arm] = ledger["matched_tokens"], ledger["flops"]["sweeps"] / ledger["flops"]["final training"]
    # So few steps still pay: all take the whole budget, and a quarter of it was tried besides.
    assert len({tokens for tokens, _ in spent.values()}) == 1
    assert 0.2 < spent["baseline"][1] <= 0.25 and spent["oracle"][1] == spent["baseline"][1]


def test_the_first_seeds_trials_come_before_the_other_seeds_arms(corpus: Path, tmp_path: Path) -> None:
    recipe = load_recipe(write_recipe(tmp_path, corpus), [*EACH, "seeds=[3, 4]"])
    listed = {part.name: part for part in parts(recipe)}
    assert "seed-3/train-oracle" in listed["seed-4/train-oracle"].needs
    assert "seed-4/train-oracle" not in listed["seed-3/train-oracle"].needs
