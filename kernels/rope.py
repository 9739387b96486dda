"""Rotary position embedding (Su et al., arXiv 2104.09864) in the half-rotation layout of Hugging Face.

Element i of the first half of a head and element i of its second half are one plane, rotated by
position * theta ** (-2 i / E). Weights in this layout go to and from Hugging Face as they are.
"""

from typing import Any

import torch

from .cpu import address, cpp, takes


def rope(
    q_BSHE: torch.Tensor, k_BSKE: torch.Tensor, positions: torch.Tensor, theta: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Queries and keys rotated by their positions.

    Args:
        q_BSHE, k_BSKE: any floating type; the mathematics is at least fp32. E is even.
        positions: int32 or int64 [B, S].
        theta: base of the wavelengths.

    Returns:
        Both, in their shapes and types.

    Raises:
        ValueError: the head dimension is odd.
    """
    table = rotation_table(positions, q_BSHE.shape[-1], theta)
    return rotate(q_BSHE, table), rotate(k_BSKE, table)


def rotation_table(positions: torch.Tensor, head_dim: int, theta: float) -> torch.Tensor:
    """What `rotate` needs of the positions; made once, used by every layer.

    Args:
        positions: int32 or int64 [B, S].

    Returns:
        fp32 [2, B, S, 1, E]: cosines, and sines with the sign of the half they are multiplied with. The
        angles are taken in float64: at position 100,000 an fp32 angle is wrong by up to 0.004.

    Raises:
        ValueError: the head dimension is odd.
    """
    if head_dim % 2:
        raise ValueError(f"head_dim is {head_dim}; allowed: even numbers, such as {head_dim + 1}")
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float64, device=positions.device) / head_dim
    angles = positions.to(torch.float64)[..., None, None] * theta**-exponents
    cosines, sines = angles.cos().to(torch.float32), angles.sin().to(torch.float32)
    return torch.stack((torch.cat((cosines, cosines), -1), torch.cat((-sines, sines), -1)))


def rotate(x_BSHE: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """`x` rotated by the positions of `table`; shape and type of `x`.

    Raises:
        ValueError: the table is of other positions or another head dimension.
    """
    batch, size, _, head_dim = x_BSHE.shape
    if table.shape != (2, batch, size, 1, head_dim):
        raise ValueError(
            f"the table has shape {tuple(table.shape)}; allowed: {(2, batch, size, 1, head_dim)}"
        )
    return _Rotate.apply(x_BSHE, table)


class _Rotate(torch.autograd.Function):
    """Keeps nothing but the table: the gradient is the gradient's rotation backwards."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(table)
        return _rotated(x, table, 1)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        (table,) = ctx.saved_tensors
        return _rotated(grads[0], table, -1), None


def _rotated(x_BSHE: torch.Tensor, table: torch.Tensor, direction: int) -> torch.Tensor:
    if not takes(x_BSHE):
        return _rotated_by_torch(x_BSHE, table, direction)
    x_BSHE = x_BSHE.contiguous()
    turned = torch.empty_like(x_BSHE)
    heads, head_dim = x_BSHE.shape[2:]
    cpp.rope_rotate(
        x_BSHE.dtype == torch.bfloat16,
        x_BSHE.shape[0] * x_BSHE.shape[1],
        heads,
        head_dim,
        direction,
        address(x_BSHE),
        address(table),
        address(turned),
    )
    return turned


def _rotated_by_torch(x: torch.Tensor, table: torch.Tensor, direction: int) -> torch.Tensor:
    cosines, sines = table.unbind()
    math = torch.promote_types(x.dtype, torch.float32)
    x_math = x.to(math)
    first, second = x_math.chunk(2, -1)
    turned = torch.cat((second, first), -1).mul_(sines)
    return (x_math * cosines).add_(turned, alpha=direction).to(x.dtype)
