import pytest
import torch
from kernel_checks import assert_as_exact_as, normal_tensor
from torch import library

from megasbp.kernels.swiglu import swiglu


def formula(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    return gate / (1 + torch.exp(-gate)) * up


# The last shape is treated in several parts, the last of them short.
@pytest.mark.parametrize("shape", [(1,), (1, 1), (3, 5, 33), (2, 1001, 352)])
# bf16: the mathematics is fp32, so one rounding of each result is all.
@pytest.mark.parametrize(
    ("dtype", "roundings"), [(torch.float64, 16), (torch.float32, 16), (torch.bfloat16, 1.1)]
)
def test_value_and_gradients_are_those_of_the_formula(shape, dtype, roundings):
    inputs = (3 * normal_tensor(1, *shape, dtype=dtype), normal_tensor(2, *shape, dtype=dtype))
    assert_as_exact_as(swiglu, formula, inputs, roundings)


def test_gradients_are_those_of_finite_differences():
    inputs = (normal_tensor(3, 4, 6).requires_grad_(), normal_tensor(4, 4, 6).requires_grad_())
    assert torch.autograd.gradcheck(swiglu, inputs)


# The interpreter warns; a GPU says nothing.
@pytest.mark.filterwarnings("ignore:overflow")
def test_extreme_gates_stay_finite():
    gate = torch.tensor([[-1e4, 1e4, 0.0]], requires_grad=True)
    value = swiglu(gate, torch.ones(1, 3))
    value.sum().backward()
    assert value.tolist() == [[0.0, 1e4, 0.0]]
    assert gate.grad.tolist() == [[0.0, 1.0, 0.5]]


def test_strided_inputs_give_the_same_numbers():
    both = normal_tensor(5, 4, 7, 20, dtype=torch.float32)
    gate, up = both.chunk(2, -1)
    # Strided memory takes scalar code, whose exponential may round the other way.
    torch.testing.assert_close(
        swiglu(gate, up), swiglu(gate.contiguous(), up.contiguous()), rtol=1e-6, atol=0
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_operators_are_what_they_say(dtype):
    gate, up = (normal_tensor(seed, 3, 5, 8, dtype=dtype).requires_grad_() for seed in (1, 2))
    for inputs in ((gate, up), (gate.transpose(0, 1), up.transpose(0, 1))):
        library.opcheck(torch.ops.megasbp.swiglu_forward.default, inputs)


def test_different_shapes_are_refused():
    with pytest.raises(ValueError, match="make them equal"):
        swiglu(torch.ones(2, 3), torch.ones(2, 4))
