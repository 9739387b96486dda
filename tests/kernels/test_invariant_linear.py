"""A row's product has the same bits however many rows there are and wherever it stands."""

import pytest
import torch
from kernel_checks import largest_error, normal_tensor
from torch.nn import functional

from megasbp.kernels.invariant_linear import invariant_linear, invariant_wide_product

TYPES = [torch.float64, torch.float32, torch.bfloat16]
# Inputs and outputs: within one block, beside its end, of several.
SIZES = [(5, 3), (64, 65), (200, 70)]
ROWS = 70


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("sizes", SIZES)
def test_values_are_those_of_the_formula(sizes, dtype):
    inputs, outputs = sizes
    x, weight = normal_tensor(1, 2, 9, inputs, dtype=dtype), normal_tensor(2, outputs, inputs, dtype=dtype)
    exact = functional.linear(x.double(), weight.double())
    found = invariant_linear(x, weight)
    assert (found.dtype, found.shape) == (dtype, exact.shape)
    # The result is rounded once; sums are of `inputs` products.
    wide = inputs * torch.finfo(torch.promote_types(dtype, torch.float32)).eps
    assert largest_error(found.double(), exact) <= wide + torch.finfo(dtype).eps
    logits = invariant_wide_product(x[0], weight.t())
    assert logits.dtype == torch.promote_types(dtype, torch.float32)
    assert largest_error(logits.double(), exact[0]) <= wide


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("sizes", SIZES)
def test_a_rows_bits_depend_neither_on_the_number_of_rows_nor_on_its_place(sizes, dtype):
    inputs, outputs = sizes
    x, weight = normal_tensor(1, ROWS, inputs, dtype=dtype), normal_tensor(2, outputs, inputs, dtype=dtype)
    products = (invariant_linear, lambda x, weight: invariant_wide_product(x, weight.t()))
    for product in products:
        together = product(x, weight)
        for rows in (1, 3, 8, 17, 64):
            assert torch.equal(product(x[:rows], weight), together[:rows])
        assert torch.equal(product(x.roll(5, 0), weight), together.roll(5, 0))


@pytest.mark.parametrize("path", ["torch"], indirect=True)
def test_sizes_and_types_that_do_not_agree_are_refused():
    x, weight = normal_tensor(1, 4, 6, dtype=torch.float32), normal_tensor(2, 3, 5, dtype=torch.float32)
    with pytest.raises(ValueError, match=r"allowed: \[..., inputs\] and \[outputs, inputs\] of one type"):
        invariant_linear(x, weight)
    with pytest.raises(ValueError, match="of one type"):
        invariant_linear(x, weight[:, :5].double())


@pytest.mark.parametrize("path", ["torch"], indirect=True)
def test_gradients_are_refused():
    x, weight = normal_tensor(1, 4, 6, dtype=torch.float32), normal_tensor(2, 3, 6, dtype=torch.float32)
    with pytest.raises(ValueError, match="have no gradients"):
        invariant_linear(x, weight.requires_grad_())
