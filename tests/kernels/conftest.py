"""Every test of a kernel runs three times, in C++, in PyTorch and in Triton, unless it says where it runs.

Triton runs on the GPU where there is one, and in its interpreter elsewhere. float64 is PyTorch's alone.
"""

import importlib.util
from pathlib import Path

import pytest
import torch
from routes import send_all

HAS_GPU = torch.cuda.is_available()


def pytest_collection_modifyitems(items):
    """Leaves out what would be PyTorch's run a second and a third time."""
    folder = Path(__file__).parent
    items[:] = [item for item in items if item.path.parent != folder or not _is_repeated(item)]


def _is_repeated(item):
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    return parameters.get("dtype") == torch.float64 and parameters.get("path") in ("cpp", "triton")


@pytest.fixture(autouse=True, params=["cpp", "torch", "triton"])
def path(request, monkeypatch):
    """Where fp32 and bf16 tensors go."""
    if request.param == "triton" and importlib.util.find_spec("triton") is None:
        pytest.skip("needs triton")
    if request.param == "triton" and HAS_GPU:
        with torch.device("cuda"):
            yield request.param
        return
    if request.param != "cpp":
        send_all(monkeypatch, request.param)
    yield request.param


@pytest.fixture
def one_processor(monkeypatch):
    """Triton's kernels launch as many programs as for a device of one multiprocessor."""
    for kernel in ("qk_norm_rope", "rms_norm"):
        monkeypatch.setattr(f"megasbp.kernels.gpu.{kernel}.processors", lambda tensor: 1)
