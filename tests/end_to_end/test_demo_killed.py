"""The recipe of `make demo` with less text, killed five times on the way, beside an uninterrupted run."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import megasbp_command, published
from kills import run_and_kill

ROOT = Path(__file__).resolve().parents[2]
KILLS = 5
# The demo's models and steps, less of its text; one thread, because tests run beside each other.
SETTINGS = (
    "corpus.unique=200",
    "corpus.oracle=800",
    "corpus.validation=60",
    "corpus.test=120",
    "budget.tokens_per_arm=40_960",
    'budget.arms=["baseline","sbp","oracle"]',
    "synthesizer.maximum_validation_pairs=40",
    "evaluation.maximum_value_pairs=30",
    "threads=1",
)


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_five_kills_change_no_byte_of_the_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    fetch = [sys.executable, "tools/fetch_demo_corpus.py", "corpora/demo"]
    subprocess.run(fetch, check=True, capture_output=True)
    whole, killed = (
        megasbp_command("run", "configs/demo.toml", f"runs={tmp_path / name}", *SETTINGS)
        for name in ("whole", "killed")
    )
    start = time.monotonic()
    subprocess.run(whole, check=True, capture_output=True)
    seconds = time.monotonic() - start

    # Together no longer than the whole run took, which a killed one, beginning anew, cannot outrun.
    moments = random.Random(0)
    log = tmp_path / "output.txt"
    pauses = [moments.uniform(0.05, 0.2) * seconds for _ in range(KILLS)]
    kills = run_and_kill(killed, pauses, os.environ, log)
    done = subprocess.run(killed, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr[-2000:]
    assert kills == KILLS, f"the run ended after {kills} kills; see {log}"
    assert published(tmp_path / "killed" / "demo") == published(tmp_path / "whole" / "demo")
