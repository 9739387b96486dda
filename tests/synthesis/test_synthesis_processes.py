import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What the driver left: runs that were killed in several ways and one that was not."""
    path = tmp_path_factory.mktemp("processes")
    driver = Path(__file__).with_name("synthesis_driver.py")
    path_of_package = os.pathsep.join([str(driver.parents[2]), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path_of_package}
    finished = subprocess.run(
        [sys.executable, driver, path],
        capture_output=True,
        text=True,
        timeout=280,
        env=environment,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return path


@pytest.fixture(scope="module")
def report(folder):
    return json.loads((folder / "report.json").read_text())


def test_the_run_has_several_shards_and_a_duplicate_across_them(folder):
    facts = json.loads((folder / "whole" / "corpus" / "synthesis.json").read_text())["facts"]
    assert facts["shards"] >= 3
    assert facts["drops"]["duplicate"] > 0


def test_a_run_killed_at_each_step_of_publication_ends_with_the_same_bytes(report):
    assert report["steps"]["kills"] >= 5
    assert report["steps"]["files"] == report["whole"]["files"]


def test_a_run_killed_at_random_times_ends_with_the_same_bytes(report):
    assert report["times"]["kills"] >= 2
    assert report["times"]["files"] == report["whole"]["files"]


def test_documents_do_not_depend_on_the_number_of_processes(folder):
    def rows(part: int, parts: int) -> list:
        return json.loads((folder / f"part-{part}-of-{parts}.json").read_text())

    whole = rows(0, 1)
    assert rows(0, 2) == whole[0::2]
    assert rows(1, 2) == whole[1::2]
