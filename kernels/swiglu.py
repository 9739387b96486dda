"""The gated activation silu(gate) * up (Shazeer, arXiv 2002.05202)."""

from typing import Any

import torch
from torch import Tensor

from .cpu import address, cpp
from .custom_op import contiguous_like, custom_op, differentiable
from .route import route


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
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
    return _swiglu_forward(gate, up)


@custom_op(fake=lambda gate, up: contiguous_like(gate))
def _swiglu_forward(gate: Tensor, up: Tensor) -> Tensor:
    match route(gate, up):
        case "cpp":
            gate, up = gate.contiguous(), up.contiguous()
            product = torch.empty_like(gate)
            in_bfloat16 = gate.dtype == torch.bfloat16
            cpp.swiglu_forward(in_bfloat16, gate.numel(), address(gate), address(up), address(product))
            return product
        case "triton":
            from .gpu import swiglu as gpu

            return gpu.forward(gate.contiguous(), up.contiguous())
        case "torch":
            return _forward(gate, up)


@custom_op(fake=lambda grad, gate, up: (contiguous_like(gate), contiguous_like(up)))
def _swiglu_backward(grad: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of gate and up."""
    match route(gate, up):
        case "cpp":
            grad, gate, up = grad.contiguous(), gate.contiguous(), up.contiguous()
            grad_gate, grad_up = torch.empty_like(gate), torch.empty_like(up)
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
        case "triton":
            from .gpu import swiglu as gpu

            return gpu.backward(grad.contiguous(), gate.contiguous(), up.contiguous())
        case "torch":
            return _backward(grad, gate, up)


def _setup(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    # The activation is taken again in the backward pass.
    ctx.save_for_backward(*inputs)


def _gradients(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
    return _swiglu_backward(grads[0], *ctx.saved_tensors)


differentiable(_swiglu_forward, _setup, _gradients)


def _forward(gate: Tensor, up: Tensor) -> Tensor:
    math = torch.promote_types(gate.dtype, torch.float32)
    gate_math = gate.to(math)
    # Not torch's sigmoid: where its vectors leave a remainder, scalar code rounds the exponential
    # differently, and a row's bits would depend on its place in the batch.
    activation = gate_math / gate_math.neg().exp_().add_(1)
    return activation.mul_(up.to(math)).to(gate.dtype).contiguous()


def _backward(grad: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    math = torch.promote_types(gate.dtype, torch.float32)
    gate_math, grad_math = gate.to(math), grad.to(math)
    sigmoid = gate_math.sigmoid()
    activation = gate_math * sigmoid
    grad_up = activation * grad_math
    # silu' = sigmoid + silu * (1 - sigmoid)
    slope = activation.addcmul_(activation, sigmoid, value=-1).add_(sigmoid)
    grad_gate = slope.mul_(up.to(math)).mul_(grad_math)
    return grad_gate.to(gate.dtype).contiguous(), grad_up.to(gate.dtype).contiguous()
