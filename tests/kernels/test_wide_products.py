import pytest
import torch
from kernel_checks import largest_error, normal_tensor

from megasbp.kernels.products import add_wide_product, wide_product

TYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("turned", [False, True])
def test_products_of_narrow_operands_are_exact_to_the_wide_type(dtype, turned):
    a, b = normal_tensor(1, 33, 70, dtype=dtype), normal_tensor(2, 70, 17, dtype=dtype)
    if turned:
        a = a.t().contiguous().t()
    exact = a.double() @ b.double()
    wide = torch.promote_types(dtype, torch.float32)
    # Sums of 70 products, each exact or rounded once.
    tolerance = 70 * torch.finfo(wide).eps
    found = wide_product(a, b)
    assert found.dtype == wide
    assert largest_error(found.double(), exact) <= tolerance
    total = normal_tensor(3, 33, 17, dtype=wide)
    expected = total.double() + exact
    add_wide_product(total, a, b)
    assert largest_error(total.double(), expected) <= tolerance
