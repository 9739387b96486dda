"""Rotary position embedding (Su et al., arXiv 2104.09864) in the half-rotation layout of Hugging Face.

Element i of the first half of a head and element i of its second half are one plane, rotated by
position * theta ** (-2 i / E). Weights in this layout go to and from Hugging Face as they are.
"""

from typing import Any

import torch
from torch import Tensor

from .cpu import address, cpp
from .custom_op import contiguous_like, custom_op, differentiable
from .route import route


def rotation_table(positions: Tensor, head_dim: int, theta: float) -> Tensor:
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


def rotate(q_BSHE: Tensor, k_BSKE: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
    """Queries and keys rotated by the positions of `table`.

    Args:
        q_BSHE, k_BSKE: of one floating type; the mathematics is at least fp32.
        table: of `rotation_table`.

    Returns:
        Both, in their shapes and types.

    Raises:
        ValueError: the table is of other positions or another head dimension, or the types differ.
    """
    check_table(q_BSHE, k_BSKE, table)
    return _rope(q_BSHE, k_BSKE, table, 1)


def check_table(q_BSHE: Tensor, k_BSKE: Tensor, table: Tensor) -> None:
    """Refuses what does not fit together; see `rotate`."""
    batch, size, _, head_dim = q_BSHE.shape
    if table.shape != (2, batch, size, 1, head_dim):
        raise ValueError(
            f"the table has shape {tuple(table.shape)}; allowed: {(2, batch, size, 1, head_dim)}"
        )
    if k_BSKE.dtype != q_BSHE.dtype or (*k_BSKE.shape[:2], k_BSKE.shape[3]) != (batch, size, head_dim):
        raise ValueError(
            f"keys are {k_BSKE.dtype} {tuple(k_BSKE.shape)}, queries {q_BSHE.dtype} {tuple(q_BSHE.shape)}; "
            "they may differ in the number of heads alone"
        )


@custom_op(fake=lambda q, k, table, direction: (contiguous_like(q), contiguous_like(k)))
def _rope(q: Tensor, k: Tensor, table: Tensor, direction: int) -> tuple[Tensor, Tensor]:
    """Rotated forwards (direction 1) or backwards (-1)."""
    match route(q, k):
        case "cpp":
            return _in_cpp(q, table, direction), _in_cpp(k, table, direction)
        case "triton":
            from .gpu import rope as gpu

            return gpu.rotate(q.contiguous(), k.contiguous(), table.contiguous(), direction)
        case "torch":
            return _rotated(q, table, direction), _rotated(k, table, direction)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    # Nothing but the table is kept: the gradient is the gradient's rotation backwards.
    q, k, table, ctx.direction = inputs
    ctx.like = q.shape, k.shape
    ctx.save_for_backward(table)


def _gradients(ctx: Any, grad_q: Tensor | None, grad_k: Tensor | None) -> tuple[Tensor, Tensor, None, None]:
    (table,) = ctx.saved_tensors
    some = grad_k if grad_q is None else grad_q
    assert some is not None
    q_shape, k_shape = ctx.like
    grad_q = some.new_zeros(q_shape) if grad_q is None else grad_q
    grad_k = some.new_zeros(k_shape) if grad_k is None else grad_k
    return *_rope(grad_q, grad_k, table, -ctx.direction), None, None


differentiable(_rope, _setup, _gradients)


def _in_cpp(x_BSHE: Tensor, table: Tensor, direction: int) -> Tensor:
    x_BSHE, table = x_BSHE.contiguous(), table.contiguous()
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


def _rotated(x: Tensor, table: Tensor, direction: int) -> Tensor:
    cosines, sines = table.unbind()
    math = torch.promote_types(x.dtype, torch.float32)
    x_math = x.to(math)
    first, second = x_math.chunk(2, -1)
    turned = torch.cat((second, first), -1).mul_(sines)
    return (x_math * cosines).add_(turned, alpha=direction).to(x.dtype).contiguous()
