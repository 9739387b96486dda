"""Two torchrun agents on loopback; one is lost on the way and comes back."""

import subprocess
from functools import partial
from pathlib import Path

import pytest
from commands import environment, megasbp_command, published
from hosts import Hosts
from small_run import write_recipe

from megasbp.storage import MANIFEST_NAME, Manifest, read_manifest

# Two hosts of two ranks: the arms over tensor and pipeline ranks, the synthesizer, whose context is four
# times as long, over context ranks and FSDP2.
CLUSTER = """
[cluster]
training = { nodes = 2, processes = 2, parallel = { tensor = 2, pipeline = 2 } }
tuning = { nodes = 2, processes = 2, parallel = { context = 2 } }
evaluation = { nodes = 2, processes = 2 }
"""
SETTINGS = (
    "budget.tokens_per_arm=10_240",
    "model.kv_heads=2",
    "training.micro_batch=2",
    "synthesizer.micro_batch=2",
    "tuning.weight_decays=[]",
    'budget.arms=["baseline","sbp"]',
    "budget.multiples=[]",
)


def recipe_for_two(folder: Path, corpus: Path) -> Path:
    folder.mkdir()
    recipe = write_recipe(folder, corpus)
    recipe.write_text(recipe.read_text() + CLUSTER)
    return recipe


def manifest_of(run: Path, stage: str) -> Manifest:
    (folder,) = run.glob(f"{stage}-*")
    manifest = read_manifest(folder, check="hashes")
    assert manifest is not None
    return manifest


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_losing_each_host_changes_no_byte_of_the_whole_method(corpus: Path, tmp_path: Path) -> None:
    reports = {}
    for name in ("whole", "broken"):
        recipe = recipe_for_two(tmp_path / name, corpus)
        run = recipe.parent / "runs" / "small"
        with Hosts(recipe, tmp_path / name / "log", *SETTINGS) as hosts:
            if name == "broken":
                # Host 0 has the meeting place too.
                for host, stage in ((1, "train-baseline"), (0, "synthesizer-true")):
                    checkpoints = f"seed-0/{stage}-*/checkpoints/step-????????"
                    hosts.wait_until(partial(found, run, checkpoints), 1000)
                    hosts.lose(host)
                    (lost,) = run.glob(f"seed-0/{stage}-*")
                    assert not (lost / MANIFEST_NAME).exists(), "lost behind its training"
                    hosts.start(host)
            hosts.wait(1400)
        reports[name] = published(run)
    assert reports["whole"] == reports["broken"]

    # What no sampling has touched yet differs from one process by the rounding of other sums.
    whole = tmp_path / "whole" / "runs" / "small"
    alone = recipe_for_two(tmp_path / "alone", corpus)
    command = megasbp_command("run", str(alone), "--until", "train-baseline", *SETTINGS)
    subprocess.run(command, env=environment(), check=True, capture_output=True)
    together, one = (
        manifest_of(run, "seed-0/train-baseline").facts["final_validation_loss"]
        for run in (whole, alone.parent / "runs" / "small")
    )
    assert together == pytest.approx(one, rel=1e-5)


def found(folder: Path, pattern: str) -> bool:
    return any(folder.glob(pattern))
