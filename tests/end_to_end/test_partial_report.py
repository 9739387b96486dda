"""The report of what is complete of a recipe."""

import json
import shutil
import subprocess
from pathlib import Path

from commands import environment, megasbp_command, published
from small_run import write_recipe


def report(folder: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    command = megasbp_command("report", str(folder / "small.toml"), *overrides)
    return subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)


def remove(run: Path, *stages: str) -> None:
    for stage in stages:
        (folder,) = (run / "seed-0").glob(f"{stage}-{10 * '?'}")
        shutil.rmtree(folder)


def test_arms_and_seeds_that_are_complete_are_reported_as_in_the_whole(
    finished_run: Path, corpus: Path, tmp_path: Path
) -> None:
    run = tmp_path / "runs" / "small"
    shutil.copytree(finished_run / "runs" / "small", run)
    write_recipe(tmp_path, corpus)
    remove(run, "losses-oracle", "losses-best-oracle", "train-random_pairs")
    before = published(run)
    done = report(tmp_path, "seeds=[0, 1]")
    assert done.returncode == 0, done.stderr
    assert "missing: random_pairs, oracle, seed 1" in done.stdout
    assert published(run) == before
    whole = json.loads(before["results.json"])
    partial = json.loads((run / "report" / "partial" / "results.json").read_text())
    assert set(partial["arms"]) == {"baseline", "sbp", "self_samples", "baseline_x2"}
    assert all(partial["arms"][arm] == whole["arms"][arm] for arm in partial["arms"])
    assert partial["contrasts"]["H1 sbp vs baseline"] == whole["contrasts"]["H1 sbp vs baseline"]
    assert partial["what_this_run_can_show"].startswith(
        "This report is partial: random_pairs, oracle, seed 1 missing."
    )
    assert "This report is partial" in (run / "report" / "partial" / "report.html").read_text()


def test_what_no_report_can_do_without_is_named(finished_run: Path, corpus: Path, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "small"
    shutil.copytree(finished_run / "runs" / "small", run)
    write_recipe(tmp_path, corpus)
    remove(run, "pair-value")
    done = report(tmp_path)
    assert (done.returncode, done.stderr) == (
        2,
        "megasbp: small: seed-0/pair-value is not made yet; no report without it\n",
    )
    remove(run, "losses-baseline")
    done = report(tmp_path)
    assert "small: seed-0/losses-baseline is not made yet; no report without it" in done.stderr
