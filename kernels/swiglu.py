"""The gated activation silu(gate) * up (Shazeer, arXiv 2002.05202)."""

from typing import Any

import torch

from .cpu import address, cpp, takes


def swiglu(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """silu(gate) * up.

    Args:
        gate, up: [..., F], equal shapes and floating types; the mathematics is at least fp32.

    Returns:
        Shape and type of `gate`.

    Raises:
        ValueError: the shapes or types differ.
    """
    if gate.shape != up.shape or gate.dtype != up.dtype:
        raise ValueError(
            f"gate is {gate.dtype} {tuple(gate.shape)}, up is {up.dtype} {tuple(up.shape)}; make them equal"
        )
    return _SwiGLU.apply(gate, up)


class _SwiGLU(torch.autograd.Function):
    """Keeps gate and up, and takes the activation again in the backward pass."""

    @staticmethod
    def forward(ctx: Any, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        ctx.in_cpp = takes(gate, up)
        if not ctx.in_cpp:
            ctx.save_for_backward(gate, up)
            return _forward(gate, up)
        gate, up = gate.contiguous(), up.contiguous()
        product = torch.empty_like(gate)
        ctx.save_for_backward(gate, up)
        cpp.swiglu_forward(
            gate.dtype == torch.bfloat16, gate.numel(), address(gate), address(up), address(product)
        )
        return product

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        gate, up = ctx.saved_tensors
        if not ctx.in_cpp:
            return _backward(grads[0], gate, up)
        grad, grad_gate, grad_up = grads[0].contiguous(), torch.empty_like(gate), torch.empty_like(up)
        cpp.swiglu_backward(
            gate.dtype == torch.bfloat16,
            gate.numel(),
            address(grad),
            address(gate),
            address(up),
            address(grad_gate),
            address(grad_up),
        )
        return grad_gate, grad_up


def _forward(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    math = torch.promote_types(gate.dtype, torch.float32)
    gate_math = gate.to(math)
    # Not torch's sigmoid: where its vectors leave a remainder, scalar code rounds the exponential
    # differently, and a row's bits would depend on its place in the batch.
    activation = gate_math / gate_math.neg().exp_().add_(1)
    return activation.mul_(up.to(math)).to(gate.dtype)


def _backward(grad: torch.Tensor, gate: torch.Tensor, up: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of gate and up."""
    math = torch.promote_types(gate.dtype, torch.float32)
    gate_math, grad_math = gate.to(math), grad.to(math)
    sigmoid = gate_math.sigmoid()
    activation = gate_math * sigmoid
    grad_up = activation * grad_math
    # silu' = sigmoid + silu * (1 - sigmoid)
    slope = activation.addcmul_(activation, sigmoid, value=-1).add_(sigmoid)
    return slope.mul_(up.to(math)).mul_(grad_math).to(gate.dtype), grad_up.to(gate.dtype)
