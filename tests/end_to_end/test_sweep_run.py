"""A sweep on the recipe of half a minute: what does not change is made once."""

import json
import subprocess

from commands import environment, megasbp_command
from small_run import write_recipe

from megasbp.experiment.sweep import read_sweep

SWEPT = "synthesis.temperature=[0.8, 1.0]"


def test_stages_that_do_not_change_are_reused_and_each_combination_has_its_results(corpus, tmp_path):
    recipe = write_recipe(tmp_path, corpus)
    command = megasbp_command("sweep", str(recipe), SWEPT, 'budget.arms=[["baseline", "sbp"]]')
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    # Two weight decays are tried.
    assert done.stdout.count("train-baseline: started") == 2
    assert done.stdout.count("synthesizer-true: started") == 1
    assert done.stdout.count("train-sbp: started") == 2
    variants = read_sweep(recipe, [SWEPT, 'budget.arms=[["baseline", "sbp"]]'])
    found = [json.loads((one.folder / "results.json").read_text()) for one in variants]
    assert [one["recipe"]["synthesis"]["temperature"] for one in found] == [0.8, 1.0]
    baselines, sbp = ([one["arms"][arm]["test"]["estimate"] for one in found] for arm in ("baseline", "sbp"))
    assert baselines[0] == baselines[1]
    assert sbp[0] != sbp[1]
    table = (tmp_path / "runs" / "small" / "sweep" / "table.txt").read_text()
    for one in found:
        assert f"{one['contrasts']['H1 sbp vs baseline']['estimate']:+.4f}" in table
    page = (tmp_path / "runs" / "small" / "sweep" / "report.html").read_text()
    assert all(f'href="{one.folder.name}/report.html"' in page for one in variants)
    assert all((one.folder / "report.html").is_file() for one in variants)
    # Nothing is done twice, and the run itself has no report that it was not asked for.
    again = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
    assert ": started" not in again.stdout
    assert not (tmp_path / "runs" / "small" / "report").exists()
    # Workers put the results where they belong too.
    (variants[1].folder / "results.json").unlink()
    subprocess.run([*command, "--jobs", "2"], env=environment(), capture_output=True, check=True)
    assert json.loads((variants[1].folder / "results.json").read_text()) == found[1]
    assert not (tmp_path / "runs" / "small" / "report").exists()
