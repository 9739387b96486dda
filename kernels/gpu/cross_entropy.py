"""Softmax statistics of rows, each read once, and gradients, each written once.

Rows of 65,536 to 262,144 logits do not fit a program's registers: it walks along its row with one maximum for
all and a sum for each place of its block, so that a step costs one exponential a logit and one reduction. The
sums are added in the end: the bits of a row depend on that row alone.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import Config, fitted

# Blocks of logits: 32 a thread are eight 16-byte loads of fp32.
DEFAULT = Config(blocks=(8192,), warps=8, stages=1)
CANDIDATES = (Config((2048,), 4, 1), Config((4096,), 8, 1))


def statistics(
    logits: Tensor, labels: Tensor, first: int, config: Config = DEFAULT
) -> tuple[Tensor, Tensor, Tensor]:
    """Of `cross_entropy_statistics`, fp32; contiguous tensors."""
    rows, vocabulary = logits.shape
    maximum, total, label_logit = (logits.new_empty(rows, dtype=torch.float32) for _ in range(3))
    block, warps = fitted(config, vocabulary)
    if rows:
        cross_entropy_statistics[(rows,)](
            logits, labels, maximum, total, label_logit, vocabulary, first, BLOCK=block, num_warps=warps
        )
    return maximum, total, label_logit


def gradient(
    logits: Tensor,
    labels: Tensor,
    first: int,
    maximum: Tensor,
    total: Tensor,
    scale: Tensor | None,
    z_loss: float,
    dtype: torch.dtype,
    config: Config = DEFAULT,
) -> Tensor:
    """Of `cross_entropy_gradient`; contiguous tensors, fp32 but for the logits."""
    rows, vocabulary = logits.shape
    result = torch.empty_like(logits, dtype=dtype)
    block, warps = fitted(config, vocabulary)
    if rows:
        cross_entropy_gradient[(rows, triton.cdiv(vocabulary, block))](
            logits,
            labels,
            maximum,
            total,
            maximum if scale is None else scale,
            result,
            vocabulary,
            first,
            z_loss,
            BLOCK=block,
            SCALES=scale is not None,
            num_warps=warps,
        )
    return result


@triton.jit
def cross_entropy_statistics(
    logits_ptr,
    labels_ptr,
    maximum_ptr,
    total_ptr,
    label_logit_ptr,
    vocabulary,
    first,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    logits_ptr += row * vocabulary
    label = tl.load(labels_ptr + row).to(tl.int64)
    if label < 0:
        tl.store(maximum_ptr + row, 0.0)
        tl.store(total_ptr + row, 1.0)
        tl.store(label_logit_ptr + row, 0.0)
    else:
        place = label - first
        here = (place >= 0) & (place < vocabulary)
        tl.store(label_logit_ptr + row, tl.load(logits_ptr + place, here, other=0.0).to(tl.float32))
        column = tl.arange(0, BLOCK)
        maximum = -float("inf")
        total = tl.zeros([BLOCK], tl.float32)
        for start in tl.range(0, vocabulary, BLOCK):
            inside = start + column < vocabulary
            x = tl.load(logits_ptr + start + column, inside, other=-float("inf")).to(tl.float32)
            largest = tl.maximum(maximum, tl.max(x, 0))
            # Nothing but -inf so far: its sum is 0, not exp of a difference of infinities.
            shift = tl.where(largest == -float("inf"), 0.0, largest)
            total = total * tl.exp(maximum - shift) + tl.exp(x - shift)
            maximum = largest
        tl.store(maximum_ptr + row, maximum)
        tl.store(total_ptr + row, tl.sum(total, 0))


@triton.jit
def cross_entropy_gradient(
    logits_ptr,
    labels_ptr,
    maximum_ptr,
    total_ptr,
    scale_ptr,
    gradient_ptr,
    vocabulary,
    first,
    z_loss,
    BLOCK: tl.constexpr,
    SCALES: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    label = tl.load(labels_ptr + row).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    offset = row * vocabulary + column
    inside = column < vocabulary
    if label < 0:
        tl.store(gradient_ptr + offset, tl.zeros([BLOCK], gradient_ptr.dtype.element_ty), inside)
    else:
        maximum = tl.load(maximum_ptr + row)
        total = tl.load(total_ptr + row)
        factor = (1 + 2 * z_loss * (maximum + tl.log(total))) / total
        x = tl.load(logits_ptr + offset, inside, other=-float("inf")).to(tl.float32)
        result = tl.exp(x - maximum) * factor
        result = tl.where(column == label - first, result - 1, result)
        if SCALES:
            result *= tl.load(scale_ptr + row)
        tl.store(gradient_ptr + offset, result.to(gradient_ptr.dtype.element_ty), inside)
