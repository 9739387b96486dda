"""`megasbp doctor`: a sound installation passes, and each problem comes with its mend."""

from collections import namedtuple
from importlib import metadata

import pytest

from megasbp import doctor as module
from megasbp.shards import machine


def run_doctor(capsys) -> tuple[int, list[str]]:
    status = module.doctor()
    return status, [line for line in capsys.readouterr().out.splitlines() if line.startswith("!")]


@pytest.fixture(autouse=True)
def enough_threads_and_disk(monkeypatch):
    """What the machine that runs the tests has to spare must not decide them."""
    monkeypatch.setattr(module, "usable_cores", lambda: 10_000)
    monkeypatch.setattr(module, "_LEAST_FREE_BYTES", 0)


def test_this_installation_is_sound(capsys):
    assert run_doctor(capsys) == (0, [])


def test_missing_requirement_is_named_with_the_command_that_installs_it(capsys, monkeypatch):
    real = metadata.version

    def version(name: str) -> str:
        if name == "safetensors":
            raise metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(metadata, "version", version)

    status, problems = run_doctor(capsys)

    assert status == 1
    assert len(problems) == 1 and "safetensors" in problems[0] and "pip install 'safetensors>=" in problems[0]


def test_a_clone_that_is_not_installed_is_looked_at_too(capsys, monkeypatch):
    installed = {str(one) for one in module._requirements()}

    def requires(name: str) -> list[str]:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", requires)
    found = {str(one) for one in module._requirements()}
    assert {one.partition(";")[0] for one in found} == {one.partition(";")[0] for one in installed}
    assert run_doctor(capsys) == (0, [])


def test_requirement_that_is_too_old_is_a_problem(capsys, monkeypatch):
    real = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "1.0" if name == "torch" else real(name))

    _, problems = run_doctor(capsys)

    assert len(problems) == 1 and "torch" in problems[0] and "1.0" in problems[0]


def test_missing_extension_is_a_problem_with_the_build_command(capsys, monkeypatch):
    real = module.importlib.import_module

    def import_module(name: str):
        if name == "megasbp._C":
            raise ImportError(name)
        return real(name)

    monkeypatch.setattr(module.importlib, "import_module", import_module)

    _, problems = run_doctor(capsys)

    assert len(problems) == 1 and "python setup.py build_ext --inplace" in problems[0]


def test_full_disk_is_a_problem(capsys, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(module, "_LEAST_FREE_BYTES", 2 * 10**9)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda folder: usage(10**10, 10**10 - 10**6, 10**6))

    _, problems = run_doctor(capsys)

    assert len(problems) == 1 and problems[0].startswith("! disk")


def test_more_threads_than_the_container_allows_is_a_problem(capsys, monkeypatch, tmp_path):
    torch = pytest.importorskip("torch")
    # A quota of half a core, whatever the affinity.
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    monkeypatch.setattr(machine, "_CPU_LIMITS", ((tmp_path / "cpu.max",),))
    monkeypatch.setattr(module, "usable_cores", machine.usable_cores)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)

    _, problems = run_doctor(capsys)

    assert len(problems) == 1 and problems[0].endswith("1 cores, torch uses 2 threads; set OMP_NUM_THREADS=1")


def test_gpu_without_bf16_is_a_problem(capsys, monkeypatch):
    torch = pytest.importorskip("torch")
    properties = namedtuple("properties", "name total_memory major minor")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda index: properties("Tesla V100", 16 * 2**30, 7, 0)
    )

    _, problems = run_doctor(capsys)

    assert len(problems) == 1 and "training.precision=fp32" in problems[0]


def test_the_engines_of_synthesis_are_named(capsys):
    module.doctor()
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.split()[:1] == ["synthesis"]]
    assert "own engine; vllm" in line
