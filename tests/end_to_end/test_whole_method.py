"""The whole method on a recipe of half a minute: once, again, and killed five times on the way."""

import json
import os
import random
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from commands import environment, megasbp_command
from commands import published as published_by
from kills import run_and_kill
from page_browser import DESK, PHONE, messages, needs_browser, open_page, overflow, running_browser
from small_run import write_recipe

from megasbp.experiment.arm_stages import LOSS_FILES, best_losses_stage, losses_stage
from megasbp.experiment.context import last_checkpoint
from megasbp.experiment.method import Method
from megasbp.experiment.recipe import load_recipe
from megasbp.experiment.stages import StageResult, Workspace
from megasbp.parallel.runtime import Runtime
from megasbp.storage import hash_file, read_manifest

KILLS = 5


def published(folder: Path) -> dict[str, bytes]:
    return published_by(folder / "runs" / "small")


def test_every_arm_has_a_result_and_the_matched_budget(finished_run: Path) -> None:
    results = json.loads(published(finished_run)["results.json"])
    arms = results["arms"]
    assert set(arms) == {"baseline", "sbp", "self_samples", "random_pairs", "oracle", "baseline_x2"}
    assert len({sum(arm["plan"]["tokens_per_source"].values()) for arm in arms.values()}) == 1
    assert arms["sbp"]["plan"]["epochs"]["synthetic"] <= 1
    assert all(arm["test"]["low"] < arm["test"]["estimate"] < arm["test"]["high"] for arm in arms.values())


def test_self_samples_are_written_without_seeds_and_pay_for_no_pairs(finished_run: Path) -> None:
    (folder,) = (finished_run / "runs" / "small" / "seed-0").glob("synthesis-self_samples-*")
    rows = pq.read_table(folder / "provenance.parquet").to_pylist()
    assert {(row["seed_doc"], row["temperature"], row["top_p"]) for row in rows} == {(-1, 1.0, 0.95)}
    results = json.loads(published(finished_run)["results.json"])
    arm = results["arms"]["self_samples"]
    assert arm["plan"]["tokens_per_source"] == results["arms"]["sbp"]["plan"]["tokens_per_source"]
    assert set(arm["ledger"]["flops"]) == {"final training", "sweeps", "initial pretraining", "decoding"}
    assert results["quality"]["self_samples"]["seed_copy"] is None
    assert results["contrasts"]["H2 sbp vs self_samples"]["p_holm"] is not None


def test_every_arm_is_measured_at_the_end_of_its_budget_and_at_its_best(finished_run: Path) -> None:
    results = json.loads(published(finished_run)["results.json"])
    for arm in results["arms"].values():
        (seed,) = arm["seeds"].values()
        lowest = min(seed["history"], key=lambda point: point["validation_loss"])
        assert seed["best_validation"]["step"] == lowest["step"]
        loss = [point["validation_loss"] for point in seed["history"]]
        assert all([point[name] for point in arm["curve"]] == loss for name in ("low", "high"))
        if lowest == seed["history"][-1]:
            assert arm["test_best_validation"] == arm["test"]
    assert all("low" in one["best_validation"] for one in results["contrasts"].values())


def test_sbp_is_placed_among_baselines_on_more_text(finished_run: Path) -> None:
    results = json.loads(published(finished_run)["results.json"])
    found = results["data_efficiency"]
    assert [point["arm"] for point in found["points"]] == ["baseline", "baseline_x2"]
    assert found["points"][1]["multiple"] == pytest.approx(2, rel=0.1)
    # It agrees with the contrast: below 1 exactly where SBP does not gain.
    assert (found["kind"] == "below") == (results["contrasts"]["H1 sbp vs baseline"]["estimate"] < 0)


def test_the_best_weights_are_those_of_the_best_checkpoint(finished_run: Path, tmp_path: Path) -> None:
    recipe = load_recipe(finished_run / "small.toml")
    runtime = Runtime(0, 1, torch.device("cpu"))
    method = Method(recipe, Workspace(recipe.folder, makes=()), runtime)
    first, second = method.seed(0).trials
    # Of two trainings the second one's weights are given out as the first one's best.
    other = os.path.relpath(last_checkpoint(second), first.folder)
    facts = {**first.facts, "best_checkpoint": other}
    mixed = StageResult(first.folder, replace(first.manifest, facts=facts))
    workspace = Workspace(tmp_path, announce=lambda line: None)
    context = replace(method.seed(0).context, workspace=workspace)
    final = losses_stage(context, "baseline", mixed)
    best = best_losses_stage(context, "baseline", mixed, final)
    expected = losses_stage(context, "baseline", second)
    for name in LOSS_FILES:
        assert (best.folder / name).read_bytes() == (expected.folder / name).read_bytes()
    assert best.facts == expected.facts != final.facts


def test_triples_show_dropped_documents_and_what_was_copied(finished_run: Path) -> None:
    results = json.loads(published(finished_run)["results.json"])
    triples = results["triples"]
    dropped = [one for one in triples if not one["accepted"]]
    assert len(triples) == results["recipe"]["evaluation"]["triples"]
    assert len(dropped) == len(triples) // 4
    assert all(one["filters"]["dropped by"] in results["synthesis"]["sbp"]["drops"] for one in dropped)
    assert all(one["filters"] == {} for one in triples if one["accepted"])
    marked = [(one, *stretch) for one in triples for stretch in one["copied"]["corpus"]]
    assert marked
    assert all(0 <= first < end <= len(one["synthetic"]) for one, first, end in marked)
    # What stands in the seed stands in the corpus.
    for one in triples:
        inside = {place for first, end in one["copied"]["corpus"] for place in range(first, end)}
        assert all(set(range(first, end)) <= inside for first, end in one["copied"]["seed"])


def test_the_page_says_what_it_was_made_with(finished_run: Path) -> None:
    software = json.loads((finished_run / "runs" / "small" / "report" / "software.json").read_text())
    assert software["torch"] == metadata.version("torch")
    assert f"torch {software['torch']}" in published(finished_run)["report.html"].decode()


def test_it_is_noted_when_test_losses_were_put_into_results(finished_run: Path) -> None:
    folder = finished_run / "runs" / "small"
    rows = [json.loads(line) for line in (folder / "test_reads.jsonl").read_text().splitlines()]
    results = json.loads((folder / "report" / "results.json").read_text())
    assert rows[-1]["results"] == "report/results.json"
    assert rows[-1]["sha256"] == hash_file(folder / "report" / "results.json")
    assert rows[-1]["arms"] == sorted(results["arms"])
    assert rows[-1]["seeds"] == results["recipe"]["seeds"]
    assert all(datetime.fromisoformat(row["time"]).tzinfo == UTC for row in rows)


@needs_browser
def test_the_page_fits_a_phone_and_has_no_error(finished_run: Path) -> None:
    with running_browser() as browser:
        for size in (PHONE, DESK):
            open_page(browser, finished_run / "runs" / "small" / "report" / "report.html", size)
            assert overflow(browser) <= 0
        assert browser.execute_script("return document.querySelectorAll('.triple').length") == 5
        assert messages(browser) == []


def test_the_exact_plan_is_printed_before_the_first_training(finished_run: Path) -> None:
    output = (finished_run / "output.txt").read_text()
    assert 0 < output.index("token counts exact") < output.index("train-baseline: started")


def test_a_closed_gate_warns_and_ends_the_run_only_where_the_recipe_says_so(finished_run: Path) -> None:
    before = published(finished_run)
    gates = {gate["name"]: gate for gate in json.loads(before["results.json"])["gates"]["0"]}
    # A budget of six epochs is not enough for this baseline.
    assert [name for name, gate in gates.items() if not gate["open"]] == ["baseline"]
    output = (finished_run / "output.txt").read_text()
    assert output.index("gate baseline closed") < output.index("train-sbp: started")
    done = subprocess.run(
        megasbp_command("run", str(finished_run / "small.toml"), "gates.closed=stop"),
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "seed-0/gates: gate baseline closed" in done.stderr
    assert "lower corpus.unique" in done.stderr
    assert ": started" not in done.stdout
    assert published(finished_run) == before


def test_a_second_run_keeps_every_stage_and_changes_nothing(finished_run: Path) -> None:
    before = published(finished_run)
    done = subprocess.run(
        megasbp_command("run", str(finished_run / "small.toml")),
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert ": started" not in done.stdout
    assert published(finished_run) == before


def test_how_training_is_carried_out_makes_no_other_model(finished_run: Path) -> None:
    changed = ("training.micro_batch=2", "training.log_every=7", "training.keep_checkpoints=3")
    done = subprocess.run(
        megasbp_command("stage", str(finished_run / "small.toml"), "train-sbp", *changed),
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "seed-0/train-sbp: done before, kept"


def test_five_kills_change_no_byte_of_the_results(finished_run: Path, corpus: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, corpus)
    command = megasbp_command("run", str(recipe))
    moments = random.Random(0)
    # The interpreter and torch take some seconds to start; what follows is work.
    seconds = [moments.uniform(4, 7) for _ in range(KILLS)]
    kills = run_and_kill(command, seconds, environment(), tmp_path / "output.txt")
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert kills == KILLS, "the run ended before it could be killed often enough; make the recipe longer"
    assert published(tmp_path) == published(finished_run)


def test_a_synthesis_is_known_by_its_corpus_and_not_by_the_shards_that_led_to_it(finished_run: Path) -> None:
    (folder,) = (finished_run / "runs" / "small" / "seed-0").glob("synthesis-sbp-*")
    assert any((folder / "shards").iterdir())
    manifest = read_manifest(folder, check="hashes")
    assert manifest is not None
    assert sorted(manifest.files) == [
        "provenance.parquet",
        "synthesis.json",
        "synthetic.bin",
        "synthetic.idx",
        "synthetic.json",
    ]


def test_clean_lists_only_what_the_results_do_not_need(finished_run: Path) -> None:
    run = finished_run / "runs" / "small"
    listed = subprocess.run(
        megasbp_command("clean", str(run), "--dry-run"),
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert listed.stdout.strip().endswith("0.0 MB  would be freed")


@pytest.mark.parametrize("verb", ["run", "sweep", "stage", "plan", "train", "report", "clean", "doctor"])
def test_help_teaches(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    from megasbp.cli import main

    with pytest.raises(SystemExit) as stop:
        main([verb, "--help"])
    assert stop.value.code == 0
    assert f"megasbp {verb}" in capsys.readouterr().out
