"""The corrections of Triton's interpreter: without them, tests of kernels in bfloat16 mean nothing."""

import os

import pytest
import torch

if not torch.cuda.is_available():
    import interpreter
    import triton
    import triton.language as tl

    # Interpreted, whatever decorated it before.
    os.environ["TRITON_INTERPRET"] = "1"

    @triton.jit
    def product(a_ptr, b_ptr, out_ptr):
        place = tl.arange(0, 16)[:, None] * 16 + tl.arange(0, 16)[None, :]
        tl.store(out_ptr + place, tl.dot(tl.load(a_ptr + place), tl.load(b_ptr + place)))

    @triton.jit
    def cast(x_ptr, out_ptr):
        place = tl.arange(0, 16)
        tl.store(out_ptr + place, tl.load(x_ptr + place).to(tl.bfloat16))

    del os.environ["TRITON_INTERPRET"]

pytestmark = [
    pytest.mark.skipif(torch.cuda.is_available(), reason="with a GPU nothing is interpreted"),
    pytest.mark.parametrize("path", ["triton"], indirect=True),
]


@pytest.fixture(params=["mended", "unmended"])
def mended(request):
    """Whether the corrections are in place."""
    if request.param == "unmended":
        interpreter.unmend()
    yield request.param == "mended"
    interpreter.mend()


def test_products_in_bfloat16_are_right_with_the_correction_only(mended):
    a, b = (torch.randn(16, 16, generator=torch.Generator().manual_seed(seed)).bfloat16() for seed in (1, 2))
    out = torch.empty(16, 16)
    product[(1,)](a, b, out)
    assert torch.allclose(out, a.float() @ b.float(), rtol=1e-5, atol=1e-5) is mended


def test_casts_to_bfloat16_round_with_the_correction_only(mended):
    x = torch.randn(16, generator=torch.Generator().manual_seed(0))
    # Ties go to the even one; what is no number stays none.
    x[:3] = torch.tensor([1 + 2.0**-8, 1 + 3 * 2.0**-8, float("nan")])
    out = torch.empty(16, dtype=torch.bfloat16)
    cast[(1,)](x, out)
    assert torch.equal(out.nan_to_num(7.0), x.bfloat16().nan_to_num(7.0)) is mended
