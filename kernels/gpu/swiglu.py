"""silu(gate) * up and its gradients: each number read once and written once."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import Config

# Elements of a program.
_CONFIG = Config(blocks=(1024,), warps=4, stages=1)
CANDIDATES = tuple(Config((block,), warps, 1) for block in (1024, 2048, 4096, 8192) for warps in (4, 8))


def forward(gate: Tensor, up: Tensor, config: Config = _CONFIG) -> Tensor:
    """silu(gate) * up of contiguous tensors."""
    product = torch.empty_like(gate)
    (block,) = config.blocks
    if gate.numel():
        grid = (triton.cdiv(gate.numel(), block),)
        swiglu_forward[grid](gate, up, product, gate.numel(), BLOCK=block, num_warps=config.warps)
    return product


def backward(grad: Tensor, gate: Tensor, up: Tensor, config: Config = _CONFIG) -> tuple[Tensor, Tensor]:
    """Gradients of gate and up; contiguous tensors."""
    grad_gate, grad_up = torch.empty_like(gate), torch.empty_like(up)
    (block,) = config.blocks
    if gate.numel():
        grid = (triton.cdiv(gate.numel(), block),)
        swiglu_backward[grid](
            grad, gate, up, grad_gate, grad_up, gate.numel(), BLOCK=block, num_warps=config.warps
        )
    return grad_gate, grad_up


@triton.jit
def swiglu_forward(gate_ptr, up_ptr, product_ptr, size, BLOCK: tl.constexpr):
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = place < size
    gate = tl.load(gate_ptr + place, inside, other=0.0).to(tl.float32)
    up = tl.load(up_ptr + place, inside, other=0.0).to(tl.float32)
    product = gate * tl.sigmoid(gate) * up
    tl.store(product_ptr + place, product.to(product_ptr.dtype.element_ty), inside)


@triton.jit
def swiglu_backward(grad_ptr, gate_ptr, up_ptr, grad_gate_ptr, grad_up_ptr, size, BLOCK: tl.constexpr):
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = place < size
    grad = tl.load(grad_ptr + place, inside, other=0.0).to(tl.float32)
    gate = tl.load(gate_ptr + place, inside, other=0.0).to(tl.float32)
    up = tl.load(up_ptr + place, inside, other=0.0).to(tl.float32)
    sigmoid = tl.sigmoid(gate)
    activation = gate * sigmoid
    # silu' = sigmoid + silu * (1 - sigmoid)
    grad_gate = grad * up * (sigmoid + activation * (1.0 - sigmoid))
    tl.store(grad_gate_ptr + place, grad_gate.to(grad_gate_ptr.dtype.element_ty), inside)
    tl.store(grad_up_ptr + place, (grad * activation).to(grad_up_ptr.dtype.element_ty), inside)
