"""Matrix products of narrow operands whose results stay wide."""

import torch
from torch import Tensor


def wide_product(a: Tensor, b: Tensor) -> Tensor:
    """a @ b, products and sums in at least fp32, which is also the type of the result.

    A GPU multiplies bf16 and fp16 as they are: their products are exact in fp32. A CPU's products round their
    results to the type of the operands, so there these are cast.

    Args:
        a, b: [M, K] and [K, N] of one floating type.
    """
    if _stays_narrow(a):
        return torch.mm(a, b, out_dtype=torch.float32)
    math = torch.promote_types(a.dtype, torch.float32)
    return torch.mm(a.to(math), b.to(math))


def add_wide_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """total += a @ b in place, without memory for the product.

    On a GPU from torch 2.10 on: those before ask for a total in the type of the operands.

    Args:
        total: [M, N], the type of `wide_product`'s result.
        a, b: as of `wide_product`.
    """
    if _stays_narrow(a):
        torch.addmm(total, a, b, out_dtype=torch.float32, out=total)
    else:
        torch.addmm(total, a.to(total.dtype), b.to(total.dtype), out=total)


def _stays_narrow(operand: Tensor) -> bool:
    return operand.device.type == "cuda" and operand.dtype in (torch.bfloat16, torch.float16)
