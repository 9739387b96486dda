"""For all tests: Triton without a GPU, and how many of them run at once.

Where there is no GPU, Triton is interpreted: that is decided when it is first imported.
"""

import importlib.util
import os
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent / "kernels"))
HAS_TRITON = importlib.util.find_spec("triton") is not None
if HAS_TRITON and not torch.cuda.is_available():
    import interpreter  # noqa: F401

# Tests start ranks and workers of their own, so more of them than this gain nothing.
_MOST_WORKERS = 4


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """What `-n auto` means."""
    return min(os.cpu_count() or 1, _MOST_WORKERS)
