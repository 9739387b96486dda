"""A sweep on the recipe of half a minute: what does not change is made once."""

import json
import subprocess
from pathlib import Path

import pytest
from commands import environment, megasbp_command
from page_browser import PHONE, messages, needs_browser, open_page, overflow, running_browser
from small_run import write_recipe

from megasbp.experiment.sweep import read_sweep
from megasbp.report.formats import signed

ARMS = 'budget.arms=[["baseline", "sbp"]]'
SWEPT = "synthesis.temperature=[0.8, 1.0]"


@pytest.fixture(scope="module")
def finished_sweep(corpus, tmp_path_factory) -> tuple[Path, str]:
    """The folder of a recipe that was swept once, and what was printed."""
    folder = tmp_path_factory.mktemp("sweep")
    done = sweep(write_recipe(folder, corpus), SWEPT, ARMS)
    return folder, done.stdout


def sweep(recipe: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = megasbp_command("sweep", str(recipe), *arguments)
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done


@needs_browser
def test_its_pages_fit_a_phone_and_have_no_error(finished_sweep):
    folder = finished_sweep[0] / "runs" / "small" / "sweep"
    pages = sorted(folder.rglob("report.html"))
    assert len(pages) == 3
    with running_browser() as browser:
        for page in pages:
            open_page(browser, page, PHONE)
            assert overflow(browser) <= 0
        assert messages(browser) == []


def test_stages_that_do_not_change_are_reused_and_each_combination_has_its_results(finished_sweep):
    folder, printed = finished_sweep
    recipe = folder / "small.toml"
    # Two weight decays are tried.
    assert printed.count("train-baseline: started") == 2
    assert printed.count("synthesizer-true: started") == 1
    assert printed.count("train-sbp: started") == 2
    variants = read_sweep(recipe, [SWEPT, ARMS])
    found = [json.loads(one.results.read_text()) for one in variants]
    assert [one["recipe"]["synthesis"]["temperature"] for one in found] == [0.8, 1.0]
    baselines, sbp = ([one["arms"][arm]["test"]["estimate"] for one in found] for arm in ("baseline", "sbp"))
    assert baselines[0] == baselines[1]
    assert sbp[0] != sbp[1]
    table = (folder / "runs" / "small" / "sweep" / "table.txt").read_text()
    assert table in printed
    for one in found:
        assert signed(one["contrasts"]["H1 sbp vs baseline"]["estimate"]) in table
        (seed,) = one["arms"]["sbp"]["seeds"].values()
        assert f"{seed['final_validation_loss']:.4f} ({seed['best_validation_loss']:.4f})" in table
    page = (folder / "runs" / "small" / "sweep" / "report.html").read_text()
    assert all(f'href="{one.folder.name}/report.html"' in page for one in variants)
    assert all(
        'href="../../sweep/report.html"' in (one.folder / "report.html").read_text() for one in variants
    )
    # Nothing is done twice, and the run itself has no report that it was not asked for.
    again = sweep(recipe, SWEPT, ARMS)
    assert ": started" not in again.stdout
    assert not (folder / "runs" / "small" / "report").exists()
    # Workers put the results where they belong too, and a sweep of one adds to the table of all.
    variants[1].results.unlink()
    sweep(recipe, "synthesis.temperature=[1.0]", ARMS, "--jobs", "2")
    assert json.loads(variants[1].results.read_text()) == found[1]
    assert (folder / "runs" / "small" / "sweep" / "table.txt").read_text() == table
    assert not (folder / "runs" / "small" / "report").exists()
