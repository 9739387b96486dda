"""Every test of a kernel runs twice: as the CPU takes it, in C++, and as other devices do, in PyTorch."""

import pytest

from megasbp.kernels import attention, decode_attention, linear_cross_entropy, rms_norm, rope, sample, swiglu

IN_CPP = (attention, decode_attention, linear_cross_entropy, rms_norm, rope, sample, swiglu)


@pytest.fixture(autouse=True, params=["cpp", "torch"])
def path(request, monkeypatch):
    """Where fp32 and bf16 tensors go."""
    if request.param == "torch":
        for module in IN_CPP:
            monkeypatch.setattr(module, "takes", lambda *tensors: False)
    return request.param
