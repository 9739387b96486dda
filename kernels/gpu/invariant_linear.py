"""The tiles of kernels/invariant_linear.py: one program each, all inputs in their order, no split sums.

How a tile is cut depends on the type alone, never on the number of rows. Rows stand innermost in the grid, so
that programs beside each other read the same part of the weight.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import Config

# Blocks: rows, outputs, inputs of a step.
# Not timed yet: few outputs a program, so that a narrow layer is read by many.
NARROW = Config(blocks=(64, 32, 128), warps=4, stages=3)
FULL = Config(blocks=(64, 64, 32), warps=4, stages=2)
CANDIDATES = (Config((64, 64, 128), 4, 3), Config((64, 128, 64), 4, 3), Config((128, 128, 64), 8, 3))


def product(x: Tensor, weight: Tensor, dtype: torch.dtype, config: Config | None = None) -> Tensor:
    """x @ weight.T, [M, N] in a type; contiguous tensors [M, K] and [N, K]."""
    (rows, inputs), outputs = x.shape, len(weight)
    config = config or (NARROW if x.element_size() == 2 else FULL)
    block_rows, block_outputs, block_inputs = config.blocks
    result = x.new_empty(rows, outputs, dtype=dtype)
    if rows and outputs:
        invariant_linear_tile[(triton.cdiv(rows, block_rows), triton.cdiv(outputs, block_outputs))](
            x,
            weight,
            result,
            rows,
            outputs,
            inputs,
            ROWS=block_rows,
            OUTPUTS=block_outputs,
            INPUTS=block_inputs,
            num_warps=config.warps,
            num_stages=config.stages,
        )
    return result


@triton.jit
def invariant_linear_tile(
    x_ptr,
    weight_ptr,
    result_ptr,
    rows,
    outputs,
    inputs,
    ROWS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    INPUTS: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    output = tl.program_id(1).to(tl.int64) * OUTPUTS + tl.arange(0, OUTPUTS)
    total = tl.zeros([ROWS, OUTPUTS], tl.float32)
    for start in tl.range(0, inputs, INPUTS):
        column = start + tl.arange(0, INPUTS)
        inside = (column < inputs)[None, :]
        x_place = row[:, None] * inputs + column[None, :]
        x = tl.load(x_ptr + x_place, (row < rows)[:, None] & inside, other=0.0)
        weight_place = output[:, None] * inputs + column[None, :]
        weight = tl.load(weight_ptr + weight_place, (output < outputs)[:, None] & inside, other=0.0)
        total = tl.dot(x, tl.trans(weight), total, input_precision="ieee")
    place = row[:, None] * outputs + output[None, :]
    exists = (row < rows)[:, None] & (output < outputs)[None, :]
    tl.store(result_ptr + place, total.to(result_ptr.dtype.element_ty), exists)
