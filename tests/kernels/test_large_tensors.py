"""Tensors of more than 2**31 elements: their last rows are what they are alone, at other addresses."""

import pytest
import torch
from kernel_checks import normal_tensor

pytest.importorskip("triton", reason="needs triton")

from megasbp.kernels.cross_entropy import cross_entropy
from megasbp.kernels.qk_norm_rope import qk_norm_rope
from megasbp.kernels.rms_norm import add_rms_norm, rms_norm
from megasbp.kernels.rope import rotate, rotation_table
from megasbp.kernels.swiglu import swiglu

WIDTH, HEADS, HEAD_DIM = 4096, 32, 128
NEEDS_GPU = "needs a GPU with 48 GiB; Triton's interpreter takes hours"
SIZES = [
    2**15,
    pytest.param(2**31, marks=pytest.mark.skipif(not torch.cuda.is_available(), reason=NEEDS_GPU)),
]
pytestmark = pytest.mark.parametrize("path", ["triton"], indirect=True)


def rows_of(size: int) -> torch.Tensor:
    """bf16 [rows, WIDTH] of a little more than `size` numbers, the last two rows alone not zero."""
    rows = torch.zeros(size // WIDTH + 2, WIDTH, dtype=torch.bfloat16)
    rows[-2:] = normal_tensor(1, 2, WIDTH, dtype=torch.bfloat16)
    return rows


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "kernel",
    [
        lambda x: rms_norm(x, torch.ones(WIDTH), 1e-6),
        lambda x: add_rms_norm(x, x, torch.ones(WIDTH), 1e-6)[1],
        lambda x: swiglu(x, x),
        lambda x: cross_entropy(x, torch.full((len(x),), 7), reduction="none")[:, None],
    ],
    ids=["rms_norm", "add_rms_norm", "swiglu", "cross_entropy"],
)
def test_last_rows_are_as_they_are_alone(kernel, size):
    x = rows_of(size).requires_grad_()
    alone = x.detach()[-2:].clone().requires_grad_()
    found, expected = kernel(x), kernel(alone)
    assert torch.equal(found[-2:], expected)
    grad = torch.zeros_like(found)
    grad[-2:] = normal_tensor(2, *expected.shape, dtype=expected.dtype)
    found.backward(grad)
    expected.backward(grad[-2:].clone())
    assert torch.equal(x.grad[-2:], alone.grad)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("normalised", [False, True], ids=["rope", "qk_norm_rope"])
def test_last_heads_are_as_they_are_alone(size, normalised):
    x = rows_of(size).view(1, -1, HEADS, HEAD_DIM)
    weight = torch.ones(HEAD_DIM)

    def turned(x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        table = rotation_table(positions, HEAD_DIM, 10_000.0)
        k = x[:, :, :1].contiguous()
        if normalised:
            return qk_norm_rope(x, k, weight, weight, table, 1e-6)[0]
        return rotate(x, k, table)[0]

    positions = torch.arange(x.shape[1])[None] % 4096
    assert torch.equal(turned(x, positions)[:, -2:], turned(x[:, -2:].contiguous(), positions[:, -2:]))
