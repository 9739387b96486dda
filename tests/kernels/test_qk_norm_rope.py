import pytest
import torch
from kernel_checks import assert_as_exact_as, normal_tensor
from test_rope import THETA, random_positions
from test_rope import formula as turned
from torch import library

from megasbp.kernels.qk_norm_rope import qk_norm_rope
from megasbp.kernels.rope import rotation_table

EPSILON = 1e-3
# Batch, tokens, query heads, key heads, head dimension: one of each, a half that is no power of two, more
# tokens than a program takes.
SHAPES = [(1, 1, 1, 1, 2), (2, 7, 3, 1, 6), (2, 41, 4, 2, 32)]


def formula(x: torch.Tensor, weight: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    return turned(x / (x.square().mean(-1, keepdim=True) + EPSILON).sqrt() * weight, positions)


def inputs_of(shape: tuple[int, ...], dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    batch, size, heads, kv_heads, head_dim = shape
    return (
        normal_tensor(1, batch, size, heads, head_dim, dtype=dtype),
        normal_tensor(2, batch, size, kv_heads, head_dim, dtype=dtype),
        normal_tensor(3, head_dim, dtype=dtype),
        normal_tensor(4, head_dim, dtype=dtype),
    )


@pytest.mark.parametrize("shape", SHAPES)
# The table is fp32. bf16: the norm's result is rounded before it is turned, except in Triton.
@pytest.mark.parametrize(
    ("dtype", "roundings"), [(torch.float64, 16 * 2.0**29), (torch.float32, 64), (torch.bfloat16, 3)]
)
@pytest.mark.parametrize("which", [0, 1])
def test_value_and_gradients_are_those_of_the_formula(shape, dtype, roundings, which):
    batch, size, _, _, head_dim = shape
    positions = random_positions(batch, size)
    table = rotation_table(positions, head_dim, THETA)

    def kernel(*inputs: torch.Tensor) -> torch.Tensor:
        return qk_norm_rope(*inputs, table, EPSILON)[which]

    def exact(*inputs: torch.Tensor) -> torch.Tensor:
        unused = sum(x.sum() for x in inputs)
        return formula(inputs[which], inputs[2 + which], positions) + 0 * unused

    # Behind the norm of a pair of numbers the gradient of their length is a difference of equals.
    assert_as_exact_as(kernel, exact, inputs_of(shape, dtype), roundings * (4 if head_dim == 2 else 1))


# Few processors: every program takes several blocks of tokens, the last of which is short.
@pytest.mark.usefixtures("one_processor")
@pytest.mark.parametrize(("dtype", "roundings"), [(torch.float32, 64), (torch.bfloat16, 3)])
@pytest.mark.parametrize("path", ["triton"], indirect=True)
def test_a_program_of_several_turns_adds_all_of_them(dtype, roundings):
    positions = random_positions(3, 103)
    table = rotation_table(positions, 16, THETA)

    def kernel(*inputs: torch.Tensor) -> torch.Tensor:
        return torch.cat(qk_norm_rope(*inputs, table, EPSILON), 2)

    def exact(q: torch.Tensor, k: torch.Tensor, *weights: torch.Tensor) -> torch.Tensor:
        pairs = zip((q, k), weights, strict=True)
        return torch.cat([formula(x, weight, positions) for x, weight in pairs], 2)

    assert_as_exact_as(kernel, exact, inputs_of((3, 103, 2, 1, 16), dtype), roundings)


# In C++ and PyTorch it is two kernels.
@pytest.mark.parametrize("path", ["triton"], indirect=True)
def test_in_triton_the_result_is_rounded_once(path):
    positions = random_positions(2, 41)
    table = rotation_table(positions, 32, THETA)
    q, k, q_weight, k_weight = inputs_of((2, 41, 4, 2, 32), torch.bfloat16)
    found, _ = qk_norm_rope(q, k, q_weight, k_weight, table, EPSILON)
    exact = formula(q.double(), q_weight.double(), positions)
    # Half a unit in the last of 8 binary places, and the fp32 mathematics before it.
    torch.testing.assert_close(found.double(), exact, rtol=2.0**-8 * 1.001, atol=1e-6)


# In C++ and PyTorch it is two kernels.
@pytest.mark.parametrize("path", ["triton"], indirect=True)
def test_operators_are_what_they_say(path):
    table = rotation_table(random_positions(2, 5), 8, THETA)
    inputs = [x.requires_grad_() for x in inputs_of((2, 5, 3, 1, 8), torch.float32)]
    library.opcheck(torch.ops.megasbp.qk_norm_rope_forward.default, (*inputs, table, EPSILON))


def test_the_weights_gradients_have_the_same_bits_every_time():
    table = rotation_table(random_positions(2, 41), 32, THETA)
    results = []
    for _ in range(2):
        inputs = [x.requires_grad_() for x in inputs_of((2, 41, 4, 2, 32), torch.float32)]
        q, k = qk_norm_rope(*inputs, table, EPSILON)
        (q.square().sum() + k.pow(3).sum()).backward()
        results.append([x.grad for x in inputs])
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


def test_weights_may_be_columns():
    table = rotation_table(random_positions(2, 5), 8, THETA)
    q, k, *weights = inputs_of((2, 5, 3, 1, 8), torch.float32)
    columns = [torch.stack((weight, weight.flip(0)), 1)[:, 0] for weight in weights]
    results = []
    for pair in (weights, columns):
        leaves = [x.detach().requires_grad_() for x in (q, k, *pair)]
        turned_q, turned_k = qk_norm_rope(*leaves, table, EPSILON)
        gradients = torch.autograd.grad(turned_q.sum() + turned_k.square().sum(), leaves)
        results.append((turned_q, turned_k, *gradients))
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


def test_a_weight_of_another_size_is_refused():
    table = rotation_table(torch.zeros(1, 2, dtype=torch.int64), 8, THETA)
    q = torch.ones(1, 2, 3, 8)
    with pytest.raises(ValueError, match=r"\(7,\)"):
        qk_norm_rope(q, q, torch.ones(8), torch.ones(7), table, EPSILON)
