"""The promise on which reproducible synthesis stands: a row's bits do not depend on its company or its place.

It holds on the CPU at fixed threads and fixed (N, T, capacity) when N * T is a multiple of 8: on two
threads, fp32 matrix products of 5 to 7 and 9 to 11 rows broke it, no other number tried up to 264 did. The
kernels do their part: see the comments in kernels/decode_attention.py and kernels/swiglu.py.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CASES = Path(__file__).with_name("row_independence_cases.py")


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_bits_depend_neither_on_company_nor_on_place_nor_on_slot(threads):
    path = os.pathsep.join([str(CASES.parent.parent.parent), os.environ.get("PYTHONPATH", "")])
    threading = {"OMP_WAIT_POLICY": "passive", "OMP_NUM_THREADS": str(threads)}
    environment = {**os.environ, **threading, "PYTHONPATH": path}
    run = subprocess.run(
        [sys.executable, CASES, str(threads)], env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
