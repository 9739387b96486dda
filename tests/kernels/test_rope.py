import pytest
import torch
from kernel_checks import assert_as_exact_as, normal_tensor

from megasbp.kernels.rope import rope, rotate, rotation_table

THETA = 10_000.0


def formula(x_BSHE: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Element i and element i + E/2 as the real and imaginary part of a complex number that is turned."""
    half = x_BSHE.shape[-1] // 2
    speeds = THETA ** -(torch.arange(half, dtype=torch.float64) / half)
    turns = torch.polar(torch.ones(1, dtype=torch.float64), positions.double()[..., None, None] * speeds)
    turned = torch.complex(x_BSHE[..., :half], x_BSHE[..., half:]) * turns
    return torch.cat((turned.real, turned.imag), -1)


@pytest.mark.parametrize("shape", [(1, 1, 1, 2), (2, 7, 3, 6), (2, 65, 4, 32)])
# The table is fp32, so that float64 inputs are exact to an fp32 rounding; bf16 rounds the result once.
@pytest.mark.parametrize(
    ("dtype", "roundings"), [(torch.float64, 4 * 2.0**29), (torch.float32, 4), (torch.bfloat16, 1.1)]
)
def test_value_and_gradients_are_those_of_the_formula(shape, dtype, roundings):
    positions = torch.randint(0, 4096, shape[:2], generator=torch.Generator().manual_seed(0))
    table = rotation_table(positions, shape[-1], THETA)
    assert_as_exact_as(
        lambda x: rotate(x, table),
        lambda x: formula(x, positions),
        (normal_tensor(1, *shape, dtype=dtype),),
        roundings,
    )


def test_queries_and_keys_are_turned_alike():
    q, k = normal_tensor(1, 2, 5, 4, 8), normal_tensor(2, 2, 5, 2, 8)
    positions = torch.arange(10).view(2, 5)
    turned_q, turned_k = rope(q, k, positions, THETA)
    table = rotation_table(positions, 8, THETA)
    assert torch.equal(turned_q, rotate(q, table))
    assert torch.equal(turned_k, rotate(k, table))


def test_products_depend_on_distance_alone():
    q, k = normal_tensor(1, 1, 1, 1, 16), normal_tensor(2, 1, 1, 1, 16)

    def product(at: int, back: int) -> float:
        turned_q, _ = rope(q, k, torch.tensor([[at]]), THETA)
        _, turned_k = rope(q, k, torch.tensor([[at - back]]), THETA)
        return (turned_q * turned_k).sum().item()

    # fp32 tables: sixteen products of roundings of 6e-8
    assert product(5000, 37) == pytest.approx(product(40, 37), abs=1e-5)


def test_an_odd_head_is_refused():
    with pytest.raises(ValueError, match="even"):
        rotation_table(torch.zeros(1, 1, dtype=torch.int64), 7, THETA)
