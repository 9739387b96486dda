"""Every test of a kernel runs three times: in C++, in PyTorch, and in Triton.

Triton runs on the GPU where there is one, and in its interpreter elsewhere.
"""

import importlib.util

import pytest
import torch
from routes import send_all

HAS_GPU = torch.cuda.is_available()


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
