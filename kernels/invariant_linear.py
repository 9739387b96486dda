"""x @ weight.T in which a row's bits depend on the row and the weight, not on how many rows there are.

Libraries choose how they multiply, and with it the last bits, by the number of rows. Here every row is part
of a product of one fixed shape: a tile whose program adds up all inputs in their order, in Triton on a GPU;
a block of 32 rows, the last one filled up, for the library of a CPU.
"""

import torch
from torch import Tensor

from .route import route

_BLOCK_ROWS = 32


def invariant_linear(x: Tensor, weight: Tensor) -> Tensor:
    """As `functional.linear` without a bias; sums are at least fp32. It has no gradients.

    Args:
        x: [..., inputs].
        weight: [outputs, inputs], of the same floating type.

    Returns:
        [..., outputs] in the type of `x`.

    Raises:
        ValueError: sizes or types do not agree, or gradients are asked for.
    """
    _check(x, weight)
    rows = x.reshape(-1, x.shape[-1])
    return _product(rows, weight, x.dtype).unflatten(0, x.shape[:-1])


def invariant_wide_product(a: Tensor, b: Tensor) -> Tensor:
    """As `products.wide_product`: a @ b, the result in at least fp32.

    Args:
        a, b: [M, K] and [K, N] of one floating type.

    Raises:
        ValueError: as of `invariant_linear`.
    """
    _check(a, b.t())
    wide = torch.promote_types(a.dtype, torch.float32)
    if route(a, b) != "triton":
        # What is rounded to the operands' type could not be made wide again.
        a, b = a.to(wide), b.to(wide)
    return _product(a, b.t(), wide)


def _check(x: Tensor, weight: Tensor) -> None:
    if x.dim() < 2 or weight.dim() != 2 or x.shape[-1] != weight.shape[1] or x.dtype != weight.dtype:
        raise ValueError(
            f"x is {x.dtype} {tuple(x.shape)}, the weight {weight.dtype} {tuple(weight.shape)}; allowed: "
            "[..., inputs] and [outputs, inputs] of one type"
        )
    if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
        raise ValueError("invariant products have no gradients; call them under torch.no_grad()")


def _product(rows: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
    if route(rows, weight) == "triton":
        from .gpu import invariant_linear as gpu

        # Triton launches on the current device.
        with torch.cuda.device_of(rows):
            return gpu.product(rows.contiguous(), weight.contiguous(), dtype)
    result = rows.new_empty(len(rows), len(weight), dtype=dtype)
    whole = len(rows) // _BLOCK_ROWS * _BLOCK_ROWS
    for start in range(0, whole, _BLOCK_ROWS):
        block = slice(start, start + _BLOCK_ROWS)
        torch.mm(rows[block], weight.t(), out=result[block])
    if whole < len(rows):
        last = rows.new_zeros(_BLOCK_ROWS, rows.shape[1])
        last[: len(rows) - whole] = rows[whole:]
        result[whole:] = torch.mm(last, weight.t())[: len(rows) - whole]
    return result
