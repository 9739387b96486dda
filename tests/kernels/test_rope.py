import pytest
import torch
from kernel_checks import assert_as_exact_as, normal_tensor
from torch import library

from megasbp.kernels.rope import rotate, rotation_table

THETA = 10_000.0


def formula(x_BSHE: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Element i and element i + E/2 as the real and imaginary part of a complex number that is turned."""
    half = x_BSHE.shape[-1] // 2
    speeds = THETA ** -(torch.arange(half, dtype=torch.float64) / half)
    turns = torch.polar(torch.ones(1, dtype=torch.float64), positions.double()[..., None, None] * speeds)
    turned = torch.complex(x_BSHE[..., :half], x_BSHE[..., half:]) * turns
    return torch.cat((turned.real, turned.imag), -1)


def random_positions(batch: int, size: int) -> torch.Tensor:
    generator = torch.Generator("cpu").manual_seed(0)
    return torch.randint(0, 4096, (batch, size), generator=generator, device="cpu").to(torch.empty(0).device)


# Batch, tokens, query heads, key heads, head dimension.
@pytest.mark.parametrize("shape", [(1, 1, 1, 1, 2), (2, 7, 3, 1, 6), (2, 65, 4, 2, 32)])
# The table is fp32, so that float64 inputs are exact to an fp32 rounding; bf16 rounds the result once.
@pytest.mark.parametrize(
    ("dtype", "roundings"), [(torch.float64, 4 * 2.0**29), (torch.float32, 4), (torch.bfloat16, 1.1)]
)
@pytest.mark.parametrize("which", [0, 1])
def test_value_and_gradients_are_those_of_the_formula(shape, dtype, roundings, which):
    batch, size, heads, kv_heads, head_dim = shape
    positions = random_positions(batch, size)
    table = rotation_table(positions, head_dim, THETA)
    assert_as_exact_as(
        lambda q, k: rotate(q, k, table)[which],
        lambda q, k: formula((q, k)[which], positions) + 0 * (q.sum() + k.sum()),
        (
            normal_tensor(1, batch, size, heads, head_dim, dtype=dtype),
            normal_tensor(2, batch, size, kv_heads, head_dim, dtype=dtype),
        ),
        roundings,
    )


def test_products_depend_on_distance_alone():
    q, k = normal_tensor(1, 1, 1, 1, 16), normal_tensor(2, 1, 1, 1, 16)

    def product(at: int, back: int) -> float:
        turned_q, _ = rotate(q, k, rotation_table(torch.tensor([[at]]), 16, THETA))
        _, turned_k = rotate(q, k, rotation_table(torch.tensor([[at - back]]), 16, THETA))
        return (turned_q * turned_k).sum().item()

    # fp32 tables: sixteen products of roundings of 6e-8
    assert product(5000, 37) == pytest.approx(product(40, 37), abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_operator_is_what_it_says(dtype):
    q, k = (normal_tensor(n, 2, 5, heads, 8, dtype=dtype).requires_grad_() for n, heads in enumerate((4, 2)))
    table = rotation_table(random_positions(2, 5), 8, THETA)
    library.opcheck(torch.ops.megasbp.rope.default, (q, k, table, 1))
    library.opcheck(torch.ops.megasbp.rope.default, (q[..., :4], k[..., 4:], table[..., :4], -1))


def test_keys_of_other_tokens_are_refused():
    table = rotation_table(torch.zeros(2, 5, dtype=torch.int64), 8, THETA)
    with pytest.raises(ValueError, match="number of heads"):
        rotate(torch.ones(2, 5, 4, 8), torch.ones(2, 6, 4, 8), table)
    with pytest.raises(ValueError, match=r"\(2, 3, 5, 1, 8\)"):
        rotate(torch.ones(3, 5, 4, 8), torch.ones(3, 5, 4, 8), table)


def test_an_odd_head_is_refused():
    with pytest.raises(ValueError, match="even"):
        rotation_table(torch.zeros(1, 1, dtype=torch.int64), 7, THETA)
