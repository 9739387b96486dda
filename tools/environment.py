"""Makes the environment that the Makefile's targets run in; does only what is missing or changed.

    python3 tools/environment.py --venv .venv
    python3 tools/environment.py --venv none        # the current interpreter; installs nothing
    python3 tools/environment.py --venv .venv --peers   # also what slow tests and benchmarks compare with

Two stamps hold the hash of the contents they were made from, so that a checkout or `touch` makes no work: the
packages depend on constraints.txt, pyproject.toml, the interpreter and the extra index; the C++ extension on
setup.py, CMakeLists.txt and csrc/. Needs only the standard library, and parses on old versions of Python 3,
because its first task is to refuse them in words.
"""

import argparse
import fcntl
import hashlib
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STAMPS = ROOT / "build" / "stamps"
SUPPORTED = ((3, 11), (3, 12))
# Installed without the packages they ask for; the few that are needed are in the extra `peers`.
PEERS_ALONE = ("megatron-core", "nvidia-dali-cuda130", "liger-kernel")
# Installed beside the environment, in VENV/beside/NAME: other versions of what is in it.
PEERS_BESIDE = {"triton-3.6.0": "triton==3.6.0"}
OLDEST_SETUPTOOLS = 77  # The first that reads pyproject.toml's licence expression.


def stop(problem):
    """Ends the program with one line that names the problem and the mend."""
    sys.exit(f"megasbp: {problem}")


def content_hash(paths, *facts):
    """SHA-256 over facts and the names and contents of files."""
    digest = hashlib.sha256(repr(facts).encode())
    for path in paths:
        data = path.read_bytes()
        digest.update(f"{path.relative_to(ROOT)} {len(data)}\n".encode() + data)
    return digest.hexdigest()


def is_current(stamp, key):
    """Whether a stamp was written for this hash."""
    return stamp.is_file() and stamp.read_text() == key


def write_stamp(stamp, key):
    """Records what was made; last of all, so that an interrupted step is done again."""
    stamp.parent.mkdir(parents=True, exist_ok=True)
    stamp.write_text(key)


def run(*command):
    """Runs one step; its own messages are the explanation when it fails."""
    environment = dict(os.environ, PIP_DISABLE_PIP_VERSION_CHECK="1")
    if subprocess.run(command, cwd=str(ROOT), env=environment, check=False).returncode != 0:
        stop(f"this step failed, see its message above: {shlex.join(command)}")


def check_interpreter():
    """Refuses interpreters for which the pinned packages do not exist."""
    if sys.version_info[:2] not in SUPPORTED:
        version = ".".join(map(str, sys.version_info[:3]))
        stop(f"PYTHON={sys.executable} is Python {version}; set PYTHON to a 3.11 or 3.12 (PYTHON=python3.12)")


def check_compiler():
    """Refuses to start a long download whose last step, the C++ extension, cannot succeed."""
    named = shlex.split(os.environ.get("CXX", ""))[:1]
    if not any(shutil.which(name) for name in named or ["c++", "g++", "clang++"]):
        missing = f"CXX={named[0]} is not a program" if named else "no C++17 compiler (c++, g++, clang++)"
        stop(f"{missing}; install one (apt-get install g++, or xcode-select --install) or set CXX to yours")
    if not (Path(sysconfig.get_path("include")) / "Python.h").is_file():
        version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        stop(f"the headers of {sys.executable} are missing; apt-get install python{version}-dev")


def check_current_interpreter(project):
    """With --venv none: names what the current interpreter lacks; stops only where the build would fail."""
    from importlib import metadata  # Here, after check_interpreter(): Python 3.7 has none.

    lacking = []
    for requirement in dict.fromkeys([*project["build-system"]["requires"], *wanted_packages(project)]):
        name = re.match(r"[\w.-]+", requirement).group()
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            lacking.append(requirement)
            continue
        if name == "setuptools" and int(version.split(".")[0]) < OLDEST_SETUPTOOLS:
            lacking.append(requirement)
    # cmake, ninja and pybind11 may as well be the system's; setup.py and CMake say so when they are nowhere.
    needed = [requirement for requirement in lacking if requirement.startswith("setuptools")]
    if needed:
        stop(f"VENV=none builds with what {sys.executable} has: first pip install '{needed[0]}'")
    if lacking:
        print(f"megasbp: VENV=none: {sys.executable} has no package for: {', '.join(lacking)}", flush=True)


def wanted_packages(project):
    """The requirements of the package and of the extras that the Makefile's targets use."""
    extras = project["project"]["optional-dependencies"]
    return [*project["project"]["dependencies"], *extras["dev"], *extras["demo"]]


def install(venv, project, torch_index):
    """Makes the virtual environment, installs the pinned packages, then the clone, which builds the C++."""
    if importlib.util.find_spec("ensurepip") is None:
        version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        stop(f"{sys.executable} cannot make virtual environments; apt-get install python{version}-venv")
    cuda = sys.platform == "linux" and not torch_index
    note = "; without TORCH_INDEX, Linux gets torch with several GB of CUDA libraries" if cuda else ""
    print(f"megasbp: installing the pinned packages into {venv}: a minute and the download{note}", flush=True)
    # What another Python left in the folder would never be used again; one that is gone leaves a dead link.
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    whole = (venv / "lib" / version).is_dir() and (venv / "bin" / "python").exists()
    foreign = (venv / "pyvenv.cfg").is_file() and not whole
    run(sys.executable, "-m", "venv", *(["--clear"] if foreign else []), str(venv))
    pip = (str(venv / "bin" / "python"), "-m", "pip", "install", "-q", "--no-compile")
    index = ["--extra-index-url", torch_index] if torch_index else []
    # One resolution for everything; the build's own requirements too, or an isolated build would fetch them.
    # --no-compile: a module is compiled when first imported; most of them never are.
    wanted = [*project["build-system"]["requires"], *wanted_packages(project)]
    run(*pip, "-c", "constraints.txt", *index, *wanted)
    print("megasbp: building the C++ extensions", flush=True)
    run(*pip, "--no-deps", "--no-build-isolation", "-e", ".")


def install_peers(name, project, torch_index):
    """Adds to the environment what the slow tests and the benchmarks compare with."""
    peers = project["project"]["optional-dependencies"]["peers"]
    if name == "none":
        names = ", ".join([*peers, *PEERS_ALONE, *PEERS_BESIDE])
        print(f"megasbp: VENV=none: not installed here: {names}", flush=True)
        return
    venv = ROOT / name
    stamp = venv / "peers.stamp"
    key = content_hash([ROOT / "constraints.txt", ROOT / "pyproject.toml"], peers, PEERS_ALONE, PEERS_BESIDE)
    if is_current(stamp, key):
        return
    print("megasbp: installing what the slow tests and the benchmarks compare with", flush=True)
    pip = (str(venv / "bin" / "python"), "-m", "pip", "install", "-q", "--no-compile")
    pip = (*pip, "-c", "constraints.txt")
    run(*pip, *(["--extra-index-url", torch_index] if torch_index else []), *peers)
    run(*pip, "--no-deps", *PEERS_ALONE)
    pip = pip[:-2]  # Without the constraints.
    for other, requirement in PEERS_BESIDE.items():
        folder, partial = venv / "beside" / other, venv / "beside" / f"{other}.partial"
        if not folder.is_dir():
            shutil.rmtree(str(partial), ignore_errors=True)
            run(*pip, "--no-deps", "--target", str(partial), requirement)
            partial.rename(folder)
    write_stamp(stamp, key)


def known_torch_index(name, given):
    """The index that was given, else the one that the environment was made with: it is typed once."""
    kept = ROOT / name / "torch_index"
    if given or name == "none":
        return given
    return kept.read_text() if kept.is_file() else ""


def make_environment(name, torch_index):
    """Brings the environment and the extension up to date.

    Args:
        name: folder of the virtual environment, relative to the clone; "none" is the current interpreter.
        torch_index: extra wheel index, or empty.
    """
    import tomllib  # Here, after check_interpreter(): Python 3.10 has none.

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    extensions = [ROOT / "megasbp" / f"_C{suffix}", ROOT / "megasbp" / "kernels" / f"_cpu{suffix}"]
    extension_stamp = STAMPS / f"extension{suffix}"
    sources = [
        ROOT / "setup.py",
        ROOT / "CMakeLists.txt",
        *sorted((ROOT / "csrc").rglob("*.cpp")),
        *sorted((ROOT / "csrc").rglob("*.h")),
    ]
    extension_key = content_hash(sources)

    python = sys.executable
    if name == "none":
        check_current_interpreter(project)
    else:
        venv = ROOT / name
        python = str(venv / "bin" / "python")
        packages_stamp = venv / "packages.stamp"
        pins = [ROOT / "constraints.txt", ROOT / "pyproject.toml"]
        packages_key = content_hash(pins, str(ROOT), sys.version, sys.base_prefix, torch_index)
        if not (is_current(packages_stamp, packages_key) and Path(python).exists()):
            check_compiler()
            install(venv, project, torch_index)
            (venv / "torch_index").write_text(torch_index)
            write_stamp(packages_stamp, packages_key)
            write_stamp(extension_stamp, extension_key)
            return
    if not (is_current(extension_stamp, extension_key) and all(path.is_file() for path in extensions)):
        check_compiler()
        print("megasbp: building the C++ extensions", flush=True)
        run(python, "setup.py", "-q", "build_ext", "--inplace")
        write_stamp(extension_stamp, extension_key)


def main():
    """Checks, then makes what is missing."""
    check_interpreter()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--venv", required=True, help="folder of the virtual environment, or none")
    parser.add_argument("--torch-index", default="", help="extra wheel index, for a CPU build of torch")
    parser.add_argument(
        "--peers", action="store_true", help="also install what slow tests and benchmarks compare with"
    )
    arguments = parser.parse_args()
    STAMPS.mkdir(parents=True, exist_ok=True)
    # Two targets started at once in a fresh clone would write the same files.
    with open(str(STAMPS / "lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        torch_index = known_torch_index(arguments.venv, arguments.torch_index)
        make_environment(arguments.venv, torch_index)
        if arguments.peers:
            import tomllib

            project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
            install_peers(arguments.venv, project, torch_index)


if __name__ == "__main__":
    main()
