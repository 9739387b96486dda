"""The gated activation silu(gate) * up (Shazeer, arXiv 2002.05202)."""

from collections.abc import Iterator
from typing import Any

import torch
from torch.nn import functional

# Elements treated at a time on the CPU. The fp32 copies then stay in the second-level cache, and below the
# size from which the allocator asks for fresh pages: whole copies were three times slower.
_CPU_ELEMENTS = 2**17
# Without gradients: below the size from which torch splits an elementwise operation over threads. Where a
# thread's part ends, scalar code with other last bits takes over from vector code; unsplit, and with F a
# multiple of 32, nothing is left for it, and a row's bits do not depend on its place.
_UNSPLIT_ELEMENTS = 32767


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
        elements = _CPU_ELEMENTS if any(ctx.needs_input_grad) else _UNSPLIT_ELEMENTS
        for gate_part, up_part, out in _parts(elements, gate, up, product):
            out.copy_(functional.silu(gate_part.to(math)).mul_(up_part.to(math)))
        return product

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        gate, up = ctx.saved_tensors
        math = torch.promote_types(gate.dtype, torch.float32)
        grad_gate = torch.empty_like(gate, memory_format=torch.contiguous_format)
        grad_up = torch.empty_like(up, memory_format=torch.contiguous_format)
        parts = _parts(_CPU_ELEMENTS, gate, up, grads[0], grad_gate, grad_up)
        for gate_part, up_part, grad_part, gate_out, up_out in parts:
            gate_math, grad_math = gate_part.to(math), grad_part.to(math)
            sigmoid = gate_math.sigmoid()
            activation = gate_math * sigmoid
            up_out.copy_(activation * grad_math)
            # silu' = sigmoid + silu * (1 - sigmoid)
            slope = activation.addcmul_(activation, sigmoid, value=-1).add_(sigmoid)
            gate_out.copy_(slope.mul_(up_part.to(math)).mul_(grad_math))
        return grad_gate, grad_up


def _parts(elements: int, *tensors: torch.Tensor) -> Iterator[tuple[torch.Tensor, ...]]:
    """Equal slices of the rows of all tensors, on the CPU of at most `elements` each."""
    width = tensors[0].shape[-1]
    rows = [tensor.reshape(-1, width) for tensor in tensors]
    count = len(rows[0])
    step = elements // max(1, width) if tensors[0].device.type == "cpu" else count
    return zip(*(tensor.split(max(1, step)) for tensor in rows), strict=True)
