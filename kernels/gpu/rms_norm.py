"""Norms of rows, each read once. The weight's gradient is summed in fp32 by a fixed number of programs, whose
sums are added in order: the same bits every time on one device."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import Config, processors

# Elements that a program works on at a time, in as many whole rows; warps are those of so many elements.
_FORWARD = Config(blocks=(4096,), warps=4, stages=1)
FORWARD_CANDIDATES = (Config((4096,), 8, 1), Config((4096,), 16, 1), Config((8192,), 8, 1))
# And programs per multiprocessor, each of which walks over rows.
_BACKWARD = Config(blocks=(4096, 2), warps=8, stages=3)
BACKWARD_CANDIDATES = tuple(
    Config((4096, programs), warps, stages)
    for programs, warps, stages in (
        *(
            (1, 8, 2),
            (1, 16, 1),
            (1, 16, 2),
            (1, 16, 3),
            (2, 4, 2),
            (2, 8, 1),
            (2, 8, 2),
            (2, 8, 4),
            (3, 8, 1),
            (3, 8, 3),
        ),
        *((3, 8, 2), (4, 4, 1), (4, 4, 2), (4, 4, 3), (4, 4, 4), (4, 8, 1), (6, 4, 1), (6, 4, 2), (8, 4, 1)),
    )
)


def forward(x: Tensor, weight: Tensor, eps: float, config: Config = _FORWARD) -> tuple[Tensor, Tensor]:
    """The norm of `x`, and fp32 1 / length of each row; contiguous tensors."""
    y, scale = torch.empty_like(x), x.new_empty(x.shape[:-1], dtype=torch.float32)
    _launch_forward(x, x, weight, x, y, scale, eps, False, config)
    return y, scale


def add_forward(
    x: Tensor, residual: Tensor, weight: Tensor, eps: float, config: Config = _FORWARD
) -> tuple[Tensor, Tensor, Tensor]:
    """The sum, its norm, and fp32 1 / length of each of its rows; contiguous tensors."""
    total, y, scale = torch.empty_like(x), torch.empty_like(x), x.new_empty(x.shape[:-1], dtype=torch.float32)
    _launch_forward(x, residual, weight, total, y, scale, eps, True, config)
    return total, y, scale


def backward(
    grad: Tensor,
    grad_total: Tensor | None,
    total: Tensor,
    weight: Tensor,
    scale: Tensor,
    config: Config = _BACKWARD,
) -> tuple[Tensor, Tensor]:
    """Gradients of what was normalised and of the weight; `grad_total` is added to the first."""
    grad_x = torch.empty_like(total)
    width = total.shape[-1]
    block, rows, warps = _fitted(config, width)
    blocks = triton.cdiv(scale.numel(), rows)
    programs = min(blocks, config.blocks[1] * processors(total))
    parts = total.new_empty(programs, width, dtype=torch.float32)
    if programs:
        rms_norm_backward[(programs,)](
            grad,
            grad if grad_total is None else grad_total,
            total,
            weight,
            scale,
            grad_x,
            parts,
            scale.numel(),
            WIDTH=width,
            BLOCK=block,
            ROWS=rows,
            ADDS=grad_total is not None,
            STAGES=config.stages,
            num_warps=warps,
        )
    return grad_x, parts.sum(0).to(weight.dtype)


def _fitted(config: Config, width: int) -> tuple[int, int, int]:
    """Columns, rows and warps of a program; a row may be longer than a config's elements."""
    block = triton.next_power_of_2(width)
    rows = max(1, config.blocks[0] // block)
    warps = config.warps * rows * block // config.blocks[0]
    return block, rows, min(16, max(1, warps))


def _launch_forward(
    x: Tensor,
    residual: Tensor,
    weight: Tensor,
    total: Tensor,
    y: Tensor,
    scale: Tensor,
    eps: float,
    adds: bool,
    config: Config,
) -> None:
    width = x.shape[-1]
    block, rows, warps = _fitted(config, width)
    programs = triton.cdiv(scale.numel(), rows)
    if programs:
        rms_norm_forward[(programs,)](
            x,
            residual,
            weight,
            total,
            y,
            scale,
            scale.numel(),
            eps,
            WIDTH=width,
            BLOCK=block,
            ROWS=rows,
            ADDS=adds,
            num_warps=warps,
        )


@triton.jit
def rms_norm_forward(
    x_ptr,
    residual_ptr,
    weight_ptr,
    total_ptr,
    y_ptr,
    scale_ptr,
    rows,
    eps,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
    ADDS: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, BLOCK)
    offset = row[:, None] * WIDTH + column[None, :]
    inside = (row < rows)[:, None] & (column < WIDTH)[None, :]
    x = tl.load(x_ptr + offset, inside, other=0.0).to(tl.float32)
    if ADDS:
        x += tl.load(residual_ptr + offset, inside, other=0.0).to(tl.float32)
        # The backward pass reads the rounded sum, so the norm is that of the rounded sum.
        total = x.to(total_ptr.dtype.element_ty)
        tl.store(total_ptr + offset, total, inside)
        x = total.to(tl.float32)
    scale = tl.rsqrt(tl.sum(x * x, 1) / WIDTH + eps)
    tl.store(scale_ptr + row, scale, row < rows)
    weight = tl.load(weight_ptr + column[None, :], (column < WIDTH)[None, :], other=0.0).to(tl.float32)
    y = x * scale[:, None] * weight
    tl.store(y_ptr + offset, y.to(y_ptr.dtype.element_ty), inside)


@triton.jit
def rms_norm_backward(
    grad_ptr,
    grad_total_ptr,
    x_ptr,
    weight_ptr,
    scale_ptr,
    grad_x_ptr,
    parts_ptr,
    rows,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
    ADDS: tl.constexpr,
    STAGES: tl.constexpr,
):
    column = tl.arange(0, BLOCK)
    weight = tl.load(weight_ptr + column[None, :], (column < WIDTH)[None, :], other=0.0).to(tl.float32)
    # Summed over the rows of a block at the end only: that needs all threads.
    grad_weight = tl.zeros([ROWS, BLOCK], tl.float32)
    for block in tl.range(tl.program_id(0), tl.cdiv(rows, ROWS), tl.num_programs(0), num_stages=STAGES):
        row = block * ROWS + tl.arange(0, ROWS).to(tl.int64)
        offset = row[:, None] * WIDTH + column[None, :]
        inside = (row < rows)[:, None] & (column < WIDTH)[None, :]
        scale = tl.load(scale_ptr + row, row < rows, other=0.0)[:, None]
        normalised = tl.load(x_ptr + offset, inside, other=0.0).to(tl.float32) * scale
        grad = tl.load(grad_ptr + offset, inside, other=0.0).to(tl.float32)
        grad_weight += grad * normalised
        grad *= weight
        # The norm takes away the component of the gradient that only changes the length of x.
        along = tl.sum(grad * normalised, 1)[:, None] / WIDTH
        grad_x = (grad - normalised * along) * scale
        if ADDS:
            grad_x += tl.load(grad_total_ptr + offset, inside, other=0.0).to(tl.float32)
        tl.store(grad_x_ptr + offset, grad_x.to(grad_x_ptr.dtype.element_ty), inside)
    tl.store(parts_ptr + tl.program_id(0) * WIDTH + column, tl.sum(grad_weight, 0), column < WIDTH)
