"""What the wheel and the sdist hold, that every kind of install imports, when the environment is remade."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest
from tool_modules import load_tool

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ["pyproject.toml", "setup.py", "CMakeLists.txt", "MANIFEST.in", "README.md", "LICENSE", "NOTICE"]
FOLDERS = ["csrc", "kernels", "megasbp"]
SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")
EXTENSIONS = {f"megasbp/_C{SUFFIX}", f"megasbp/kernels/_cpu{SUFFIX}"}
IMPORT_ALL = (
    "import pathlib, megasbp, megasbp.kernels._cpu, megasbp._C; print(megasbp.__file__); "
    "assert list(pathlib.Path(megasbp.__file__).parent.glob('evaluation/tasks/*.yaml'))"
)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A copy of the sources, without anything built; the link megasbp/kernels stays a link."""
    folder = tmp_path / "clone"
    folder.mkdir()
    for name in SOURCES:
        shutil.copy(ROOT / name, folder / name)
    ignored = shutil.ignore_patterns("*.so", "__pycache__")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=ignored)
    return folder


def setup_py(clone: Path, *arguments: str) -> None:
    subprocess.run([sys.executable, "setup.py", "-q", *arguments], cwd=clone, check=True, capture_output=True)


def expected_modules() -> set[str]:
    """Every module of the package under its installed name, megasbp/kernels/... included."""
    own = {path for path in (ROOT / "megasbp").rglob("*.py") if "kernels" not in path.relative_to(ROOT).parts}
    names = {path.relative_to(ROOT).as_posix() for path in own}
    return names | {f"megasbp/kernels/{path.name}" for path in (ROOT / "kernels").glob("*.py")}


def texts() -> set[str]:
    """The package's files that are no code: tasks, and a judge's prompts."""
    found = [
        path for kind in ("yaml", "txt") for path in (ROOT / "megasbp" / "evaluation").rglob(f"*.{kind}")
    ]
    assert len(found) > 2
    return {path.relative_to(ROOT).as_posix() for path in found}


def test_wheel_holds_modules_kernels_types_and_extension(clone):
    # Compiling is left out: the extensions built in place stand in for what build_ext puts into this folder.
    setup_py(clone, "build_py")
    (built,) = (clone / "build").glob("lib*")
    for name in EXTENSIONS:
        shutil.copy(ROOT / name, built / name)
    setup_py(clone, "bdist_wheel", "--skip-build")
    (wheel,) = (clone / "dist").glob("*.whl")

    names = set(zipfile.ZipFile(wheel).namelist())

    # A wheel tagged for any Python would install everywhere and import in one.
    assert f"-cp{sys.version_info[0]}{sys.version_info[1]}-" in wheel.name
    types = {"megasbp/py.typed", "megasbp/_C.pyi", "megasbp/kernels/_cpu.pyi"}
    assert expected_modules() | types | texts() | EXTENSIONS <= names
    assert not [name for name in names if name.startswith(("tests/", "tools/", "kernels/"))]


def test_sdist_holds_what_a_build_needs(clone):
    setup_py(clone, "sdist")
    (archive,) = (clone / "dist").glob("*.tar.gz")

    with tarfile.open(archive) as tar:
        names = {name.split("/", 1)[1] for name in tar.getnames() if "/" in name}

    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "csrc").rglob("*.*")}
    others = {"megasbp/py.typed", "CMakeLists.txt", "setup.py", "LICENSE", "NOTICE"}
    assert expected_modules() | sources | texts() | others <= names


def test_missing_extension_says_how_to_build_it(clone):
    result = subprocess.run(
        [sys.executable, "-c", "import megasbp._C"], cwd=clone, capture_output=True, text=True, check=False
    )

    assert "ImportError" in result.stderr and "python setup.py build_ext --inplace" in result.stderr


def interpreter(version: str) -> str:
    """The path of a Python of this version, or a skip."""
    name = f"python{version}"
    # A version manager's stand-in may lie on the PATH and refuse to run.
    if shutil.which(name) is None or subprocess.run([name, "-c", ""], check=False).returncode != 0:
        pytest.skip(f"no {name} here")
    return name


def run_at(folder: Path, *command: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs a command in a folder and keeps what it says."""
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.timeout(900)  # compiles everything
@pytest.mark.parametrize("version", ["3.11", "3.12"])
@pytest.mark.parametrize("kind", ["wheel", "sdist", "editable"])
def test_install_imports(clone, tmp_path, version, kind):
    """Each kind of install, with an isolated build (needs the network), works in the clone and outside it."""
    python = interpreter(version)
    subprocess.run([python, "-m", "venv", tmp_path / "venv"], check=True)
    installed = tmp_path / "venv" / "bin" / "python"
    target: list[str | Path] = [clone]
    if kind == "editable":
        target = ["-e", clone]
    elif kind == "sdist":
        setup_py(clone, "sdist")
        target = list((clone / "dist").glob("*.tar.gz"))
    # Dependencies are left out: torch is large, and the imports below need none. So is the compiler's care.
    quick = {**os.environ, "CMAKE_ARGS": "-DCMAKE_BUILD_TYPE=Debug -DCMAKE_CXX_FLAGS_DEBUG=-O0"}
    install = [installed, "-m", "pip", "install", "-q", "--no-deps", *target]
    subprocess.run(install, check=True, cwd="/", env=quick)
    # -P, as programs do: otherwise Python looks in the folder it is started in first, and there lie sources.
    for arguments in (["-P", "-c", IMPORT_ALL], [tmp_path / "venv" / "bin" / "megasbp", "--version"]):
        result = run_at(clone, installed, *arguments)
        assert result.returncode == 0, result.stderr
    if kind != "editable":
        shutil.rmtree(clone)

    result = run_at(Path("/"), installed, "-c", IMPORT_ALL)

    assert result.returncode == 0, result.stderr
    assert str(clone if kind == "editable" else tmp_path / "venv") in result.stdout


@pytest.fixture(scope="module")
def environment():
    """tools/environment.py as a module."""
    return load_tool("environment")


@pytest.fixture
def stamped(environment, tmp_path, monkeypatch):
    """A small clone with a stub of everything that would be installed; returns the steps that were run."""
    (tmp_path / "csrc").mkdir()
    (tmp_path / "megasbp").mkdir()
    (tmp_path / "csrc" / "module.cpp").write_text("// C++")
    for name in ("setup.py", "CMakeLists.txt", "constraints.txt"):
        (tmp_path / name).write_text(name)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    monkeypatch.setattr(environment, "STAMPS", tmp_path / "build" / "stamps")
    steps = []

    def run(*command):
        steps.append(" ".join(command[1:4]))
        if command[1:3] == ("-m", "venv"):
            (tmp_path / ".venv" / "bin").mkdir(parents=True, exist_ok=True)
            (tmp_path / ".venv" / "bin" / "python").touch()
        if "-e" in command or "build_ext" in command:
            for name in EXTENSIONS:
                (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / name).touch()

    monkeypatch.setattr(environment, "run", run)
    return tmp_path, steps


def make(environment, name: str = ".venv") -> None:
    environment.make_environment(name, torch_index="")


def test_environment_is_made_once(environment, stamped):
    folder, steps = stamped
    make(environment)
    made = len(steps)
    for path in folder.rglob("*"):
        path.touch()

    make(environment)

    assert made == 3 and len(steps) == made


def test_changed_cpp_rebuilds_the_extension_only(environment, stamped):
    folder, steps = stamped
    make(environment)
    steps.clear()
    (folder / "csrc" / "module.cpp").write_text("// other C++")

    make(environment)

    assert steps == ["setup.py -q build_ext"]


def test_the_wheel_index_is_typed_once(environment, stamped):
    _, steps = stamped
    environment.make_environment(".venv", "https://example.org/cpu")
    steps.clear()
    assert environment.known_torch_index(".venv", "") == "https://example.org/cpu"
    environment.make_environment(".venv", environment.known_torch_index(".venv", ""))
    assert steps == []
    assert environment.known_torch_index("other", "") == ""
    assert environment.known_torch_index(".venv", "https://example.org/cuda") == "https://example.org/cuda"


def test_an_environment_whose_python_is_gone_is_made_anew(environment, stamped):
    folder, steps = stamped
    make(environment)
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    (folder / ".venv" / "lib" / version).mkdir(parents=True)
    (folder / ".venv" / "pyvenv.cfg").touch()
    python = folder / ".venv" / "bin" / "python"
    python.unlink()
    python.symlink_to(folder / "gone")
    steps.clear()
    make(environment)
    assert steps[0] == "-m venv --clear"


def test_changed_pin_installs_again(environment, stamped):
    folder, steps = stamped
    make(environment)
    steps.clear()
    (folder / "constraints.txt").write_text("numpy==2")

    make(environment)

    assert [step.split()[:3] for step in steps] == [["-m", "venv", str(folder / ".venv")]] + [
        ["-m", "pip", "install"]
    ] * 2


def test_interrupted_install_is_done_again(environment, stamped, monkeypatch):
    _, steps = stamped
    finish = environment.run

    def interrupted(*command):
        if "-e" in command:
            raise KeyboardInterrupt
        finish(*command)

    monkeypatch.setattr(environment, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make(environment)
    monkeypatch.setattr(environment, "run", finish)
    steps.clear()

    make(environment)

    assert len(steps) == 3


def test_current_interpreter_gets_the_extension_only(environment, stamped):
    _, steps = stamped

    make(environment, "none")
    make(environment, "none")

    assert steps == ["setup.py -q build_ext"]


def test_missing_compiler_is_said_before_any_step(environment, stamped, monkeypatch):
    _, steps = stamped
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", "")

    with pytest.raises(SystemExit, match=r"no C\+\+17 compiler .* install one"):
        make(environment)

    assert steps == []


def test_unsupported_python_is_refused_with_the_mend(environment, monkeypatch):
    monkeypatch.setattr(environment, "SUPPORTED", ((3, 0),))

    with pytest.raises(SystemExit, match=r"set PYTHON to a 3\.11 or 3\.12"):
        environment.check_interpreter()
