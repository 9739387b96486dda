import pytest
import torch
from kernel_checks import assert_as_exact_as, normal_tensor

from megasbp.kernels.rms_norm import rms_norm

EPSILON = 1e-3


def formula(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return x / (x.square().mean(-1, keepdim=True) + EPSILON).sqrt() * weight


def kernel(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return rms_norm(x, weight, EPSILON)


@pytest.mark.parametrize("shape", [(1, 2), (1, 7), (3, 5, 33), (2, 9, 4, 32), (513, 128)])
# fp32: sums of up to 513 terms. bf16: the mathematics is fp32, so one rounding of each result is all.
@pytest.mark.parametrize(
    ("dtype", "roundings"), [(torch.float64, 64), (torch.float32, 64), (torch.bfloat16, 1.1)]
)
def test_value_and_gradients_are_those_of_the_formula(shape, dtype, roundings):
    x, weight = normal_tensor(1, *shape, dtype=dtype), normal_tensor(2, shape[-1], dtype=dtype)
    assert_as_exact_as(kernel, formula, (x, weight), roundings)


def test_gradients_are_those_of_finite_differences():
    inputs = (normal_tensor(3, 4, 6).requires_grad_(), normal_tensor(4, 6).requires_grad_())
    assert torch.autograd.gradcheck(kernel, inputs)


def test_a_zero_row_stays_zero_and_finite():
    x = torch.zeros(2, 8, requires_grad=True)
    value = rms_norm(x, torch.ones(8), 1e-6)
    value.sum().backward()
    assert value.abs().sum() == 0
    assert x.grad.isfinite().all()


def test_a_weight_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"\(7,\)"):
        rms_norm(torch.ones(2, 8), torch.ones(7), 1e-6)
