"""Every test of a kernel runs three times: in C++, in PyTorch, and in Triton.

Triton runs on the GPU where there is one, and in its interpreter elsewhere.
"""

import pytest
import torch

from megasbp.kernels import qk_norm_rope, rms_norm, rope, swiglu

HAS_GPU = torch.cuda.is_available()
if not HAS_GPU:
    import interpreter  # noqa: F401

ROUTED = (qk_norm_rope, rms_norm, rope, swiglu)
TRITON_TYPES = (torch.float32, torch.bfloat16)


def _to_triton(*tensors):
    return "triton" if all(x.dtype in TRITON_TYPES for x in tensors) else "torch"


@pytest.fixture(autouse=True, params=["cpp", "torch", "triton"])
def path(request, monkeypatch):
    """Where fp32 and bf16 tensors go."""
    if request.param == "triton" and HAS_GPU:
        with torch.device("cuda"):
            yield request.param
        return
    if request.param != "cpp":
        route = _to_triton if request.param == "triton" else lambda *tensors: "torch"
        for module in ROUTED:
            monkeypatch.setattr(module, "route", route)
    yield request.param
