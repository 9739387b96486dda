"""Builds the extensions of C++ with CMake and pybind11; everything else is in pyproject.toml.

What CMAKE_ARGS of the environment holds is handed to CMake, behind our own options.
"""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent


def find_tool(name: str) -> str | None:
    """The path of a program; beside this interpreter first, for a virtual environment need not be active."""
    beside = str(Path(sys.executable).parent)
    return shutil.which(name, path=os.pathsep.join([beside, os.environ.get("PATH", os.defpath)]))


class CMakeExtension(Extension):
    """An extension whose sources are listed in CMakeLists.txt under the last part of its name."""

    def __init__(self, name: str) -> None:
        super().__init__(name, sources=[])


class CMakeBuild(build_ext):
    """Runs CMake with this interpreter and its pybind11."""

    def build_extension(self, extension: Extension) -> None:
        cmake, ninja = find_tool("cmake"), find_tool("ninja")
        if cmake is None:
            raise SystemExit("megasbp: cmake is missing; pip install cmake, or apt-get install cmake")
        output = Path(self.get_ext_fullpath(extension.name)).resolve()
        # A CMake cache names the tools of the environment that wrote it, and an isolated build's environment
        # is gone afterwards; ninja goes by times, the Makefile by contents. So each build starts clean.
        target = extension.name.rpartition(".")[2]
        build = Path(self.build_temp).resolve() / f"cmake{target}"
        shutil.rmtree(build, ignore_errors=True)
        build.mkdir(parents=True)
        configure = [
            cmake,
            str(ROOT),
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-DCMAKE_LIBRARY_OUTPUT_DIRECTORY={output.parent}",
            "-DCMAKE_BUILD_TYPE=Release",
        ]
        try:
            import pybind11

            configure.append(f"-Dpybind11_DIR={pybind11.get_cmake_dir()}")
        except ImportError:
            pass  # CMake looks for the system's pybind11, and says so when there is none.
        configure += shlex.split(os.environ.get("CMAKE_ARGS", ""))
        if ninja is not None:
            configure += ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"]
        self._run(configure, build)
        self._run([cmake, "--build", ".", "--parallel", "--target", target], build)

    def _run(self, command: list[str], folder: Path) -> None:
        """Runs one step; under `-q` its output is shown only when it fails."""
        quiet = self.distribution.verbose < 1
        result = subprocess.run(command, cwd=folder, check=False, text=True, capture_output=quiet)
        if result.returncode != 0:
            output = result.stdout + result.stderr if quiet else ""
            raise SystemExit(f"{output}megasbp: building an extension failed in: {shlex.join(command)}")


EXTENSIONS = [CMakeExtension("megasbp._C"), CMakeExtension("megasbp.kernels._cpu")]

setup(ext_modules=EXTENSIONS, cmdclass={"build_ext": CMakeBuild})
