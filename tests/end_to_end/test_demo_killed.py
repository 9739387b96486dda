"""The recipe of `make demo` itself, killed five times on the way, beside an uninterrupted run of it."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from commands import megasbp_command, published
from kills import run_and_kill

ROOT = Path(__file__).resolve().parents[2]
KILLS = 5


@pytest.mark.slow
@pytest.mark.timeout(5400)
def test_five_kills_change_no_byte_of_the_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    fetch = [sys.executable, "tools/fetch_demo_corpus.py", "corpora/demo"]
    subprocess.run(fetch, check=True, capture_output=True)
    whole, killed = (
        megasbp_command("run", "configs/demo.toml", f"runs={tmp_path / name}") for name in ("whole", "killed")
    )
    subprocess.run(whole, check=True, capture_output=True)

    # An interrupted run has eight minutes and more of work on two fast cores; the kills come before its end.
    moments = random.Random(0)
    log = tmp_path / "output.txt"
    kills = run_and_kill(killed, [moments.uniform(15, 90) for _ in range(KILLS)], os.environ, log)
    done = subprocess.run(killed, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr[-2000:]
    assert kills == KILLS, f"the run ended after {kills} kills; see {log}"
    assert published(tmp_path / "killed" / "demo") == published(tmp_path / "whole" / "demo")
