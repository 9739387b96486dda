"""The whole method on a recipe of half a minute: once, again, and killed five times on the way."""

import json
import random
import subprocess
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import environment, megasbp_command
from conftest import published as published_by
from kills import run_and_kill
from small_run import write_recipe

from megasbp.storage import read_manifest

KILLS = 5


def published(folder: Path) -> dict[str, bytes]:
    return published_by(folder / "runs" / "small")


def test_every_arm_has_a_result_and_the_matched_budget(finished_run: Path) -> None:
    results = json.loads(published(finished_run)["results.json"])
    arms = results["arms"]
    assert set(arms) == {"baseline", "sbp", "self_samples", "random_pairs", "oracle"}
    assert len({sum(arm["plan"]["tokens_per_source"].values()) for arm in arms.values()}) == 1
    assert arms["sbp"]["plan"]["epochs"]["synthetic"] <= 1
    assert all(arm["test"]["low"] < arm["test"]["estimate"] < arm["test"]["high"] for arm in arms.values())


def test_self_samples_are_written_without_seeds_and_pay_for_no_pairs(finished_run: Path) -> None:
    (folder,) = (finished_run / "runs" / "small" / "seed-0").glob("synthesis-self_samples-*")
    rows = pq.read_table(folder / "provenance.parquet").to_pylist()
    assert {(row["seed_doc"], row["temperature"], row["top_p"]) for row in rows} == {(-1, 1.0, 1.0)}
    results = json.loads(published(finished_run)["results.json"])
    arm = results["arms"]["self_samples"]
    assert arm["plan"]["tokens_per_source"] == results["arms"]["sbp"]["plan"]["tokens_per_source"]
    assert set(arm["ledger"]["flops"]) == {"final training", "sweeps", "initial pretraining", "decoding"}
    assert results["quality"]["self_samples"]["seed_copy"] is None
    assert results["contrasts"]["H2 sbp vs self_samples"]["p_holm"] is not None


def test_the_exact_plan_is_printed_before_the_first_training(finished_run: Path) -> None:
    output = (finished_run / "output.txt").read_text()
    assert 0 < output.index("token counts exact") < output.index("train-baseline: started")


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


@pytest.mark.parametrize("verb", ["run", "stage", "plan", "train", "report", "clean", "doctor"])
def test_help_teaches(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    from megasbp.cli import main

    with pytest.raises(SystemExit) as stop:
        main([verb, "--help"])
    assert stop.value.code == 0
    assert f"megasbp {verb}" in capsys.readouterr().out
