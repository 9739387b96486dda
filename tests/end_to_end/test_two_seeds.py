"""The whole method on two seeds: what results say of both, and what a training that diverges leaves out."""

import json
import math
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from commands import environment, megasbp_command
from scipy import stats
from small_run import write_recipe

from megasbp.experiment import divergence
from megasbp.experiment.partial import publish_partial_results
from megasbp.experiment.recipe import load_recipe
from megasbp.experiment.run import run_experiment
from megasbp.report.terminal import terminal_table
from megasbp.training.trainer import Diverged, RunState, TrainingJob, TrainingResult, train

# The run takes more than a minute.
pytestmark = pytest.mark.slow

# Two arms, nothing tried but one learning rate at which every training diverges: weights become infinite.
SETTINGS = (
    "seeds=[0, 1]",
    'budget.arms=["baseline", "sbp"]',
    "budget.multiples=[]",
    "budget.tokens_per_arm=20_480",
    # Lifts the limit on learning rates.
    "model.mup_base_width=32",
    "tuning.learning_rates=[1e-2, 1e38]",
    "tuning.weight_decays=[]",
    "synthesizer.learning_rates=[3e-3, 1e38]",
)


@pytest.fixture(scope="module")
def folder(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the finished run, and what it printed."""
    folder = tmp_path_factory.mktemp("seeds")
    command = megasbp_command("run", str(write_recipe(folder, corpus)), *SETTINGS)
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    (folder / "output.txt").write_text(done.stdout)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder


@pytest.fixture(scope="module")
def results(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "runs" / "small" / "report" / "results.json").read_text())


def stage(folder: Path, name: str) -> Path:
    (found,) = (folder / "runs" / "small").glob(f"{name}-{10 * '?'}")
    return found


def facts(folder: Path, name: str) -> dict[str, Any]:
    return json.loads((stage(folder, name) / "manifest.json").read_text())["facts"]


def test_the_gain_is_that_of_both_seeds_by_hand(folder: Path, results: dict[str, Any]) -> None:
    sizes = pq.read_table(stage(folder, "datasets") / "test.parquet", columns=["bytes", "cluster"])
    units, clusters = (sizes[name].to_numpy() for name in ("bytes", "cluster"))
    nats = {
        (seed, arm): np.load(stage(folder, f"seed-{seed}/losses-{arm}") / "nats.npy")
        for seed in (0, 1)
        for arm in ("baseline", "sbp")
    }
    saved = [nats[seed, "baseline"] - nats[seed, "sbp"] for seed in (0, 1)]
    gains = [one.sum() / units.sum() for one in saved]
    found = results["contrasts"]["H1 sbp vs baseline"]
    assert found["estimate"] == pytest.approx(np.mean(gains))
    assert found["seed_error"] == pytest.approx(abs(gains[0] - gains[1]) / 2)
    # The delta method's error of the ratio, beside 500 resamples of the clusters.
    mean = np.mean(saved, axis=0) - np.mean(gains) * units
    by_cluster = np.bincount(np.unique(clusters, return_inverse=True)[1], weights=mean)
    error = by_cluster.std(ddof=1) * math.sqrt(len(by_cluster)) / units.sum()
    assert found["document_error"] == pytest.approx(error, rel=0.15)
    quantiles = stats.t.ppf(0.975, [1, len(by_cluster) - 1])
    half = math.hypot(*(quantiles * [found["seed_error"], found["document_error"]]))
    assert (found["low"], found["high"]) == pytest.approx((np.mean(gains) - half, np.mean(gains) + half))
    quantiles = stats.t.ppf(0.8, [1, len(by_cluster) - 1])
    further = math.hypot(*(quantiles * [found["seed_error"], found["document_error"]]))
    assert found["detectable"] == pytest.approx(half + further)
    assert (found["seeds"], found["label"]) == ([0, 1], "over 2 seeds")


def test_every_arm_has_both_seeds_and_a_band_between_them(results: dict[str, Any]) -> None:
    for arm in results["arms"].values():
        assert set(arm["seeds"]) == {"0", "1"}
        losses = [one["test_nats_per_byte"] for one in arm["seeds"].values()]
        assert losses[0] != losses[1]
        assert arm["test"]["estimate"] == pytest.approx(np.mean(losses))
        for point, *own in zip(arm["curve"], *(one["history"] for one in arm["seeds"].values()), strict=True):
            first, second = sorted(one["validation_loss"] for one in own)
            assert (point["low"], point["high"]) == (first, second)
            assert point["low"] < point["validation_loss"] < point["high"]


def test_what_a_pair_is_worth_is_of_both_seeds(folder: Path, results: dict[str, Any]) -> None:
    for title, found in results["pair_value"]["tables"].items():
        tables = [
            facts(folder, f"seed-{seed}/pair-value")["tables"][title.replace(" ", "_")] for seed in (0, 1)
        ]
        own = [table["contrasts"]["worth"] for table in tables]
        assert [one["worth"] for one in found["seeds"].values()] == own
        assert found["worth"]["estimate"] == pytest.approx((own[0]["estimate"] + own[1]["estimate"]) / 2)
        assert found["worth"]["seed_error"] == pytest.approx(abs(own[0]["estimate"] - own[1]["estimate"]) / 2)
        assert found["worth"]["low"] < found["worth"]["estimate"] < found["worth"]["high"]
        assert found["worth"]["label"] == "over 2 seeds"
        losses = found["losses"]
        assert losses["random"] - losses["true"] == pytest.approx(found["worth"]["estimate"])
    assert "Worth of the relation, over 2 seeds" in terminal_table(results)
    # Whether texts know their seeds is measured on the first seed alone.
    kinds = results["relation"]["kinds"].values()
    assert {kind["rank_1"]["label"] for kind in kinds} == {"conditional on this run"}
    assert "its interval, conditional on this run" in terminal_table(results)


def test_rates_that_diverge_are_tried_said_and_not_chosen(folder: Path, results: dict[str, Any]) -> None:
    assert [one["validation_loss"] is None for one in results["tuning"]["trials"]] == [False, True]
    assert results["tuning"]["chosen"]["learning_rate"] == 1e-2
    trials = results["synthesizer"]["true"]["trials"]
    assert [one["best_validation_loss"] is None for one in trials] == [False, True]
    assert results["synthesizer"]["true"]["learning_rate"] == 3e-3
    assert "left_out" not in results
    output = (folder / "output.txt").read_text()
    assert "seed-0/train-baseline: seed-0/baseline: diverged: " in output
    assert ": left out" not in output


def test_the_tuning_that_is_not_used_is_a_sweep_in_the_ledger(folder: Path, results: dict[str, Any]) -> None:
    tuned = [
        json.loads(path.read_text())["facts"]
        for path in (folder / "runs" / "small" / "seed-0").glob(f"synthesizer-true-{10 * '?'}/manifest.json")
    ]
    (used,) = (one["input_tokens"] for one in tuned if "diverged" not in one)
    (swept,) = (one["input_tokens"] for one in tuned if "diverged" in one)
    sbp, baseline = (results["arms"][arm]["ledger"]["flops"] for arm in ("sbp", "baseline"))
    assert 0 < swept < used
    # Both arms share the baseline's own trials.
    unused = sbp["sweeps"] - baseline["sweeps"]
    assert unused / sbp["synthesizer tuning"] == pytest.approx(swept / used)


def test_an_arm_that_diverges_leaves_its_seed_out_and_the_run_goes_on(
    folder: Path, results: dict[str, Any], corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(folder / "runs", tmp_path / "runs")
    run = tmp_path / "runs" / "small"
    for name in ("train-sbp", "losses-sbp", "losses-best-sbp"):
        shutil.rmtree(stage(tmp_path, f"seed-1/{name}"))
    finding = "the validation loss is not finite at step 20"

    def diverge(job: TrainingJob, runtime: Any) -> TrainingResult:
        if job.name == "seed-1/sbp":
            raise Diverged(job, finding, RunState(step=20, input_tokens=10_240))
        return train(job, runtime)

    monkeypatch.setattr(divergence, "train", diverge)
    recipe = load_recipe(write_recipe(tmp_path, corpus), SETTINGS)
    lines: list[str] = []
    run_experiment(recipe, lines.append, lambda plan: None)
    assert f"seed-1/losses: left out; seed-1/train-sbp diverged: {finding}, at learning rate 0.01" in lines
    assert not list(run.glob(f"seed-1/losses-sbp-{10 * '?'}"))
    found = json.loads((run / "report" / "results.json").read_text())
    assert found["left_out"] == {
        "1": [{"stage": "seed-1/train-sbp", "finding": f"{finding}, at learning rate 0.01"}]
    }
    # What is left is seed 0 alone, with all that was measured of it.
    contrast = found["contrasts"]["H1 sbp vs baseline"]
    assert (contrast["seeds"], contrast["label"]) == ([0], "conditional on this run")
    assert {arm: set(one["seeds"]) for arm, one in found["arms"].items()} == {"baseline": {"0"}, "sbp": {"0"}}
    assert found["arms"]["sbp"]["seeds"]["0"] == results["arms"]["sbp"]["seeds"]["0"]
    assert list(found["gates"]) == ["0"]
    worth = found["pair_value"]["tables"]["new target"]
    assert worth["worth"]["label"] == "conditional on this run"
    assert worth["worth"]["estimate"] == worth["seeds"]["0"]["worth"]["estimate"]
    assert "1 seed(s)" in found["what_this_run_can_show"]
    assert "Left out of every comparison, with all arms: seed 1" in terminal_table(found)
    # Another run finds all of it done, and a report of what is complete says the same.
    again: list[str] = []
    run_experiment(recipe, again.append, lambda plan: None)
    assert not [line for line in again if line.endswith(": started")]
    path, missing = publish_partial_results(recipe)
    assert missing == []
    assert path.read_bytes() == (run / "report" / "results.json").read_bytes()


def test_a_baseline_that_diverges_leaves_out_all_that_is_made_from_it(
    folder: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the first seed, whose trials are all the others' too."""
    shutil.copytree(folder / "runs", tmp_path / "runs")
    run = tmp_path / "runs" / "small"
    for seed_folder in (run / "seed-0", run / "report"):
        shutil.rmtree(seed_folder)

    def diverge(job: TrainingJob, runtime: Any) -> TrainingResult:
        if job.name == "seed-0/baseline":
            raise Diverged(job, "so it is", RunState(step=20, input_tokens=10_240))
        return train(job, runtime)

    monkeypatch.setattr(divergence, "train", diverge)
    one_setting = ("tuning.learning_rates=[]", "training.learning_rate=1e-2")
    recipe = load_recipe(write_recipe(tmp_path, corpus), [*SETTINGS, *one_setting])
    lines: list[str] = []
    run_experiment(recipe, lines.append, lambda plan: None)
    made = {path.name[:-11] for path in (run / "seed-0").iterdir() if path.is_dir()}
    assert made == {"train-baseline", "pairs", "quality-real"}
    found = json.loads((run / "report" / "results.json").read_text())
    assert [one["stage"] for one in found["left_out"]["0"]] == ["seed-0/train-baseline"]
    assert found["contrasts"]["H1 sbp vs baseline"]["seeds"] == [1]
    assert found["tuning"]["trials"][0]["validation_loss"] is None
    assert "relation" not in found
    assert found["triples"] == []
