"""The gated activation silu(gate) * up (Shazeer, arXiv 2002.05202)."""

from collections.abc import Iterator
from typing import Any

import torch

# Elements treated at a time on the CPU. The fp32 copies then stay in the second-level cache, and below the
# size from which the allocator asks for fresh pages: whole copies were three times slower.
_CPU_ELEMENTS = 2**17


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
        ctx.save_for_backward(gate, up)
        math = torch.promote_types(gate.dtype, torch.float32)
        product = torch.empty_like(gate, memory_format=torch.contiguous_format)
        for gate_part, up_part, out in _parts(gate, up, product):
            gate_math = gate_part.to(math)
            # Not torch's silu: where its vectors leave a remainder, scalar code rounds the exponential
            # differently, and a row's bits would depend on its place in the batch.
            activation = gate_math / gate_math.neg().exp_().add_(1)
            out.copy_(activation.mul_(up_part.to(math)))
        return product

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        gate, up = ctx.saved_tensors
        math = torch.promote_types(gate.dtype, torch.float32)
        grad_gate = torch.empty_like(gate, memory_format=torch.contiguous_format)
        grad_up = torch.empty_like(up, memory_format=torch.contiguous_format)
        parts = _parts(gate, up, grads[0], grad_gate, grad_up)
        for gate_part, up_part, grad_part, gate_out, up_out in parts:
            gate_math, grad_math = gate_part.to(math), grad_part.to(math)
            sigmoid = gate_math.sigmoid()
            activation = gate_math * sigmoid
            up_out.copy_(activation * grad_math)
            # silu' = sigmoid + silu * (1 - sigmoid)
            slope = activation.addcmul_(activation, sigmoid, value=-1).add_(sigmoid)
            gate_out.copy_(slope.mul_(up_part.to(math)).mul_(grad_math))
        return grad_gate, grad_up


def _parts(*tensors: torch.Tensor) -> Iterator[tuple[torch.Tensor, ...]]:
    """Equal slices of the rows of all tensors, on the CPU so few at a time that copies stay in the cache."""
    width = tensors[0].shape[-1]
    rows = [tensor.reshape(-1, width) for tensor in tensors]
    count = len(rows[0])
    step = _CPU_ELEMENTS // max(1, width) if tensors[0].device.type == "cpu" else count
    return zip(*(tensor.split(max(1, step)) for tensor in rows), strict=True)
