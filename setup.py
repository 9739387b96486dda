"""Builds megasbp._C with CMake and pybind11; everything else is in pyproject.toml."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent


class CMakeExtension(Extension):
    """An extension whose sources are listed in CMakeLists.txt."""

    def __init__(self, name: str) -> None:
        super().__init__(name, sources=[])


class CMakeBuild(build_ext):
    """Runs CMake with this interpreter and its pybind11."""

    def build_extension(self, extension: Extension) -> None:
        if shutil.which("cmake") is None:
            raise SystemExit("megasbp: cmake is missing; install it (apt-get install cmake, or pip install cmake)")
        compiler = os.environ.get("CXX", "c++")
        if shutil.which(compiler) is None:
            raise SystemExit(f"megasbp: no C++17 compiler ({compiler}); install one (apt-get install g++) or set CXX")
        import pybind11

        output = Path(self.get_ext_fullpath(extension.name)).resolve()
        # A CMake cache names the tools of the environment that wrote it; an isolated
        # build's environment is gone afterwards, so each build starts from a clean folder.
        build = Path(self.build_temp).resolve() / "cmake"
        shutil.rmtree(build, ignore_errors=True)
        build.mkdir(parents=True)
        configure = [
            "cmake",
            str(ROOT),
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
            f"-DCMAKE_LIBRARY_OUTPUT_DIRECTORY={output.parent}",
            "-DCMAKE_BUILD_TYPE=Release",
        ]
        if shutil.which("ninja"):
            configure += ["-G", "Ninja"]
        subprocess.run(configure, cwd=build, check=True)
        subprocess.run(["cmake", "--build", ".", "--parallel"], cwd=build, check=True)


setup(ext_modules=[CMakeExtension("megasbp._C")], cmdclass={"build_ext": CMakeBuild})
