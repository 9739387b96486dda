import pytest
import torch
from kernel_checks import ROUNDING, assert_as_exact_as, largest_error, normal_tensor
from torch import library

from megasbp.kernels.rms_norm import add_rms_norm, rms_norm

EPSILON = 1e-3
# fp32: sums of up to 513 terms. bf16: the mathematics is fp32, so one rounding of each result is all.
TYPES = [(torch.float64, 64), (torch.float32, 64), (torch.bfloat16, 1.1)]
# One row, sizes beside powers of two, more rows than programs walk over at a time.
SHAPES = [(1, 2), (1, 7), (3, 5, 33), (2, 9, 4, 32), (513, 128), (5, 5000)]


def formula(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return x / (x.square().mean(-1, keepdim=True) + EPSILON).sqrt() * weight


def kernel(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return rms_norm(x, weight, EPSILON)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("dtype", "roundings"), TYPES)
def test_value_and_gradients_are_those_of_the_formula(shape, dtype, roundings):
    x, weight = normal_tensor(1, *shape, dtype=dtype), normal_tensor(2, shape[-1], dtype=dtype)
    assert_as_exact_as(kernel, formula, (x, weight), roundings)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("dtype", "roundings"), TYPES)
def test_a_sum_and_its_norm_are_those_of_the_formula(shape, dtype, roundings):
    x, residual = (normal_tensor(seed, *shape, dtype=dtype) for seed in (1, 2))
    weight = normal_tensor(3, shape[-1], dtype=dtype)

    def both(x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return torch.stack(add_rms_norm(x, residual, weight, EPSILON))

    def both_by_formula(x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        # What is normalised is the sum as it is kept.
        total = x + residual
        rounded = total + (total.to(dtype).double() - total).detach()
        return torch.stack((rounded, formula(rounded, weight)))

    # Where the parts of a gradient nearly cancel, two roundings stand against a small sum.
    assert_as_exact_as(both, both_by_formula, (x, residual, weight), roundings * 2)


@pytest.mark.parametrize("used", [0, 1])
def test_one_result_alone_has_its_gradients(used):
    inputs = [
        normal_tensor(seed, *shape, dtype=torch.float32).requires_grad_()
        for seed, shape in enumerate(((3, 8), (3, 8), (8,)))
    ]
    result = add_rms_norm(*inputs, EPSILON)[used]
    gradients = torch.autograd.grad(result.square().sum(), inputs, allow_unused=True)
    x, residual, weight = exact = [tensor.detach().double().requires_grad_() for tensor in inputs]
    total = x + residual
    result = (total, formula(total, weight))[used]
    expected = torch.autograd.grad(result.square().sum(), exact, allow_unused=True)
    for found, wanted in zip(gradients, expected, strict=True):
        assert (found is None) == (wanted is None)
        if wanted is not None:
            # The sum is rounded, the norm of it and the square.
            assert largest_error(found.double(), wanted) <= 16 * ROUNDING[torch.float32]


# Few processors: every program takes several turns, as on a GPU at sizes that are trained.
@pytest.mark.usefixtures("one_processor")
@pytest.mark.parametrize("shape", [(513, 128), (9, 5000)])
@pytest.mark.parametrize(("dtype", "roundings"), TYPES[1:])
@pytest.mark.parametrize("path", ["triton"], indirect=True)
def test_a_program_of_several_turns_adds_all_of_them(shape, dtype, roundings):
    x, weight = normal_tensor(1, *shape, dtype=dtype), normal_tensor(2, shape[-1], dtype=dtype)
    assert_as_exact_as(kernel, formula, (x, weight), roundings)


def test_gradients_are_those_of_finite_differences():
    inputs = (normal_tensor(3, 4, 6).requires_grad_(), normal_tensor(4, 6).requires_grad_())
    assert torch.autograd.gradcheck(kernel, inputs)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_operators_are_what_they_say(dtype):
    x, weight = normal_tensor(1, 5, 3, 16, dtype=dtype), normal_tensor(2, 16, dtype=dtype)
    x.requires_grad_()
    weight.requires_grad_()
    ops = torch.ops.megasbp
    library.opcheck(ops.rms_norm_forward.default, (x, weight, EPSILON))
    library.opcheck(ops.add_rms_norm_forward.default, (x, x.detach(), weight, EPSILON))
    # Also of a tensor that is not contiguous.
    library.opcheck(ops.rms_norm_forward.default, (x.transpose(0, 1), weight, EPSILON))


def test_the_weights_gradient_has_the_same_bits_every_time():
    x, weight = normal_tensor(1, 513, 64, dtype=torch.float32), normal_tensor(2, 64, dtype=torch.float32)
    gradients = []
    for _ in range(2):
        leaf = weight.clone().requires_grad_()
        kernel(x, leaf).square().sum().backward()
        gradients.append(leaf.grad)
    assert torch.equal(*gradients)


def test_a_weight_may_be_a_column():
    x, residual = (normal_tensor(seed, 5, 33, dtype=torch.float32).requires_grad_() for seed in (1, 2))
    column = normal_tensor(3, 33, 2, dtype=torch.float32)[:, 0]
    results = []
    for weight in (column, column.contiguous()):
        leaf = weight.detach().requires_grad_()
        y = rms_norm(x, leaf, EPSILON) * add_rms_norm(x, residual, leaf, EPSILON)[1]
        results.append((y, *torch.autograd.grad(y.sum(), (x, residual, leaf))))
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


def test_a_zero_row_stays_zero_and_finite():
    x = torch.zeros(2, 8, requires_grad=True)
    value = rms_norm(x, torch.ones(8), 1e-6)
    value.sum().backward()
    assert value.abs().sum() == 0
    assert x.grad.isfinite().all()


def test_no_rows_are_no_rows():
    x, weight = torch.ones(0, 8, requires_grad=True), torch.ones(8, requires_grad=True)
    rms_norm(x, weight, 1e-6).sum().backward()
    assert x.grad.shape == (0, 8)
    assert torch.equal(weight.grad, torch.zeros(8))


def test_large_and_small_rows_stay_finite():
    x = torch.tensor([[1e18, -1e18, 1e17, 3.0], [1e-18, 0.0, -1e-19, 1e-18]], requires_grad=True)
    value = rms_norm(x, torch.ones(4), 1e-6)
    value.sum().backward()
    assert value.isfinite().all()
    assert x.grad.isfinite().all()


def test_a_weight_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"\(7,\)"):
        rms_norm(torch.ones(2, 8), torch.ones(7), 1e-6)


def test_a_residual_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"\(3, 8\)"):
        add_rms_norm(torch.ones(2, 8), torch.ones(3, 8), torch.ones(8), 1e-6)
