"""The C++ core under AddressSanitizer and UBSan: the data room's tests, and a fuzzer for a while.

MEGASBP_FUZZ_SECONDS (30) bounds the fuzzer, MEGASBP_FUZZ_SEED (of the day) repeats a run.
"""

import datetime
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
FLAGS = "-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -g1 -O1"
# Every test of the data room that reaches the C++ core.
SUITES = (
    "damaged_dataset",
    "indexed_dataset",
    "windows",
    "packed_documents",
    "pair_source",
    "mixture",
    "order",
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def library(name):
    """The path of a library of the compiler, or a skip that says what is missing."""
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        pytest.skip(f"needs the C++ compiler {compiler}")
    command = [compiler, f"-print-file-name={name}"]
    path = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    if not os.path.isabs(path):
        pytest.skip(f"needs {name}, which {compiler} does not have (Debian: apt-get install libgcc-12-dev)")
    return path


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Environment in which `import megasbp` finds a copy of the package with a sanitized core."""
    folder = tmp_path_factory.mktemp("sanitized")
    # The sanitizer's run-time must come first; it looks up the C++ one's functions when it starts.
    preload = f"{library('libasan.so')} {library('libstdc++.so')}"
    package = folder / "package"
    shutil.copytree(
        ROOT / "megasbp", package / "megasbp", ignore=shutil.ignore_patterns("*.so", "__pycache__")
    )
    build = [sys.executable, "setup.py", "-q", "build_ext"]
    build += ["--build-lib", str(package), "--build-temp", str(folder / "build")]
    # A release would be optimised over again, and linked as one; its assertions are wanted here.
    flags = {
        "CXXFLAGS": FLAGS,
        "LDFLAGS": "-fsanitize=address,undefined",
        "CMAKE_ARGS": "-DCMAKE_BUILD_TYPE=Debug -DCMAKE_CXX_FLAGS_DEBUG=",
    }
    subprocess.run(build, cwd=ROOT, env={**os.environ, **flags}, check=True)
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(package), str(HERE), str(ROOT)]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "LD_PRELOAD": preload,
        # Python and torch keep memory until the end on purpose.
        "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1",
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }


def run(environment, folder, *command):
    return subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_the_core_in_use_is_the_sanitized_one(environment, tmp_path):
    result = run(environment, tmp_path, "-c", "import megasbp._C as core; print(core.__file__)")
    assert result.returncode == 0, result.stderr
    core = Path(result.stdout.strip())
    assert not core.is_relative_to(ROOT)
    content = core.read_bytes()
    assert b"__asan_report_load8" in content
    assert b"__ubsan_handle_" in content


def test_the_data_rooms_tests_pass(environment, tmp_path):
    suites = [str(HERE / f"test_{name}.py") for name in SUITES]
    options = ["-c", str(ROOT / "pyproject.toml"), "--rootdir", str(tmp_path), "-m", "not slow"]
    result = run(environment, tmp_path, "-m", "pytest", "-p", "no:cacheprovider", *options, *suites)
    assert result.returncode == 0, f"{result.stdout[-4000:]}\n{result.stderr[-4000:]}"
    assert "passed" in result.stdout


def test_random_damage_is_refused(environment, tmp_path):
    seconds = os.environ.get("MEGASBP_FUZZ_SECONDS", "30")
    seed = os.environ.get("MEGASBP_FUZZ_SEED", str(datetime.date.today().toordinal()))
    result = run(environment, tmp_path, str(HERE / "fuzz_dataset.py"), str(tmp_path), seconds, seed)
    case = (tmp_path / "case").read_text() if (tmp_path / "case").exists() else "none"
    repeat = f"MEGASBP_FUZZ_SEED={seed}, case {case}: fuzz_dataset.py FOLDER {seconds} {seed} {case}"
    assert result.returncode == 0, f"{repeat}\n{result.stdout[-4000:]}\n{result.stderr[-6000:]}"
    counts = json.loads(result.stdout.splitlines()[-1])
    assert counts["cases"] > 50
    assert counts["refused"] > counts["cases"] // 2
