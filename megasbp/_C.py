"""Stands in where the C++ extension is not built; Python prefers `_C.*.so`, and then this file never runs."""

import sysconfig
from pathlib import Path

raise ImportError(
    f"megasbp's C++ extension is not built for this Python: {Path(__file__).parent} has no "
    f"_C{sysconfig.get_config_var('EXT_SUFFIX')}; in the clone run `python setup.py build_ext --inplace`, or "
    "install with `pip install .` (needs CMake and a C++17 compiler)"
)
