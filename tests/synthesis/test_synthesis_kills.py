"""Two hundred kills at random moments of a run of many small shards."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

KILLS = 200


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_two_hundred_kills_lose_unfinished_shards_only_and_repeat_no_document(tmp_path):
    driver = Path(__file__).with_name("synthesis_driver.py")
    path_of_package = os.pathsep.join([str(driver.parents[2]), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path_of_package}
    subprocess.run([sys.executable, driver, tmp_path, str(KILLS)], env=environment, check=True)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["killed"]["kills"] == KILLS
    assert report["killed"]["lost"] == 0
    # They got somewhere before they were killed.
    assert report["killed"]["published_by_the_killed"] >= 10
    # So no document is missing and none is there twice.
    assert report["killed"]["files"] == report["whole"]["files"]
