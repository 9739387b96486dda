"""kernels, train and generate, which are for a GPU, at toy size on a CPU; and what `make gpu` says there."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton", reason="needs triton: the launches are listed beside the cases")

from benchmarks import kernel_cases, report
from benchmarks.kernel_cases import CASES
from benchmarks.measuring import OURS

ROOT = Path(__file__).resolve().parents[2]
RECIPE = [
    str(ROOT / "configs" / "demo.toml"), "model.layers=1", "model.width=32", "model.heads=2",
    "model.kv_heads=1", "model.head_dim=16", "model.feed_forward=64", "training.sequence_length=64",
]  # fmt: skip


@pytest.fixture
def measured(tmp_path):
    """A function that measures a subject and gives {name of a measure: its sides by their names}."""
    specification = importlib.util.spec_from_file_location("benchmark", ROOT / "tools" / "benchmark.py")
    tool = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(tool)

    def measure(*arguments: str) -> dict[str, dict[str, dict]]:
        output = tmp_path / "results.json"
        assert tool.main([*arguments, "--output", str(output), "--folder", str(tmp_path)]) in (0, 1)
        measures = report.load(output)["measures"]
        return {one["name"]: {side["name"]: side for side in one["sides"]} for one in measures}

    return measure


def test_every_kernel_is_measured_in_each_direction(measured, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)  # It takes a minute.
    monkeypatch.setattr(kernel_cases, "VOCABULARY", 512)
    found = measured("kernels", "--device", "cpu", "--tokens", "64", "--repeats", "1")
    directions = [(case, direction) for case in CASES for direction in case.work]
    names = [f"{case.name} {direction}".removesuffix(" both") for case, direction in directions]
    assert list(found) == names
    for sides in found.values():
        for name in (OURS, "torch"):
            (rate,) = sides[name]["values"]
            assert rate > 0
            assert sides[name]["facts"]["share_of_ceiling"] > 0
    assert found["swiglu forward"]["liger-kernel"]["missing"] == "runs on a GPU"
    assert found["swiglu backward"]["torch.compile"]["values"]


def test_training_steps_are_measured_of_whole_and_of_packed_rows(measured):
    found = measured("train", *RECIPE, "--rows", "2", "--steps", "2", "--warm-up", "1", "--no-peers")
    assert list(found) == ["training", "training, packed documents", "training, memory"]
    for name in ("training", "training, packed documents"):
        side = found[name][OURS]
        assert len(side["values"]) == 2
        assert side["facts"]["time_split"]["products"] > 0
        assert side["facts"]["memory"] == found["training, memory"][OURS]["values"][0] or "packed" in name


def test_generation_is_measured_beside_its_batch_invariant_mode(measured):
    sizes = ("--documents", "4", "--batch", "2", "--prompt-tokens", "8", "--maximum-tokens", "8")
    sides = ("--sides", "invariant", "--decoding", "--repeats", "1")
    found = measured("generate", *RECIPE, *sizes, *sides)
    for name in (OURS, f"{OURS}, batch invariant"):
        (rate,) = found["generation"][name]["values"]
        assert rate > 0
    assert found["generation"]["transformers"]["missing"] == "left out"


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_make_gpu_says_that_there_is_none_and_what_it_can_do():
    # An environment is there already.
    command = ["make", "-o", "environment", "-o", "peers", "gpu", "VENV=none", f"PYTHON={sys.executable}"]
    # Not what the make that runs the tests was told.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}

    def make(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )

    unknown = make("PART=wrong")
    assert unknown.returncode == 2
    assert "sees no CUDA device (needed: an NVIDIA GPU, its driver, a CUDA build of torch)" in unknown.stdout
    assert "megasbp: PART=wrong; allowed: kernels, train, peers" in unknown.stdout
    # A model that a CPU can train.
    planned = make("--just-print", "PART=train").stdout
    assert "tools/benchmark.py train configs/demo.toml --no-peers" in planned
