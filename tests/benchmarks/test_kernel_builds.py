"""The kernels compile ahead of time, with the launches' own configs, and do not spill."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Put there by `make peers`.
OLDER_TRITON = Path(sys.prefix) / "beside" / "triton-3.6.0"


def build(output: Path, *arguments: str, python_path: str = "") -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {
        "PYTHONPATH": os.pathsep.join(filter(None, (python_path, str(ROOT)))),
        "TRITON_CACHE_DIR": str(output.parent / "cache"),
    }
    command = [sys.executable, "-m", "benchmarks.kernel_builds", *arguments, "--output", str(output)]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)


def test_every_kernel_compiles_for_hopper_without_spilling(tmp_path: Path) -> None:
    result = build(tmp_path / "builds.json", "--targets", "sm_90")
    assert result.returncode == 0, result.stdout + result.stderr
    rows = json.loads((tmp_path / "builds.json").read_text())["builds"]
    assert len({row["case"] for row in rows}) == 18
    assert all(row["spilled"] == 0 and row["registers"] > 0 for row in rows)


@pytest.mark.parametrize(
    ("row", "is_refused"),
    [
        ({"target": "sm_90", "config": "own", "spilled": 8}, True),
        ({"target": "sm_90", "config": "own", "spilled": 0}, False),
        ({"target": "sm_80", "config": "own", "spilled": 8}, False),
        # A tuner may try it, and will find it slow.
        ({"target": "sm_90", "config": "(64,) w4 s1", "spilled": 8}, False),
        # Chosen for other sizes.
        ({"target": "sm_90", "case": "rope, backwards", "config": "own", "spilled": 8}, False),
        ({"target": "sm_80", "config": "(64,) w4 s1", "error": "no"}, True),
    ],
)
def test_what_fails_or_spills_on_hopper_is_refused(row: dict[str, object], is_refused: bool) -> None:
    pytest.importorskip("triton", reason="needs triton")
    from benchmarks.kernel_builds import refused

    assert refused({"case": "rope", **row}) is is_refused


@pytest.mark.slow
@pytest.mark.timeout(3600)  # 190 launches for each of four targets: up to half an hour beside other tests
@pytest.mark.parametrize("version", ["installed", "3.6.0"])
def test_every_candidate_compiles_for_every_target(tmp_path: Path, version: str) -> None:
    if version == "3.6.0" and not OLDER_TRITON.is_dir():
        pytest.skip("needs triton 3.6.0 beside the installed one: make peers")
    python_path = "" if version == "installed" else str(OLDER_TRITON)
    arguments = ("--targets", "sm_80,sm_90,sm_100,gfx942", "--candidates")
    result = build(tmp_path / "builds.json", *arguments, python_path=python_path)
    assert result.returncode == 0, result.stdout[-20_000:] + result.stderr
    built = json.loads((tmp_path / "builds.json").read_text())
    assert version in ("installed", built["triton"])
    # Those of the recipe, and heads of other sizes, other directions, fp16.
    assert len({row["case"] for row in built["builds"]}) == 18 + 20
