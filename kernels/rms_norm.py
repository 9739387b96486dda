"""Root-mean-square normalisation (Zhang and Sennrich, arXiv 1910.07467)."""

from typing import Any

import torch

from .cpu import address, cpp, takes


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """x / sqrt(mean(x**2) + eps) * weight over the last dimension.

    Args:
        x: [..., D], any floating type; the mathematics is at least fp32.
        weight: [D], any floating type.
        eps: added to the mean square.

    Returns:
        Shape and type of `x`.

    Raises:
        ValueError: the sizes do not agree.
    """
    if weight.shape != x.shape[-1:]:
        raise ValueError(f"weight has shape {tuple(weight.shape)}; allowed: {tuple(x.shape[-1:])}")
    return _RMSNorm.apply(x, weight, eps)


class _RMSNorm(torch.autograd.Function):
    """The backward pass is written out: autograd would keep four fp32 copies of `x` and read them all."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        ctx.in_cpp = takes(x)
        if ctx.in_cpp:
            x, weight_math = x.contiguous(), _fp32(weight)
            y, scale = torch.empty_like(x), x.new_empty(x.shape[:-1], dtype=torch.float32)
            cpp.rms_norm_forward(
                x.dtype == torch.bfloat16,
                scale.numel(),
                x.shape[-1],
                eps,
                address(x),
                address(weight_math),
                address(y),
                address(scale),
            )
        else:
            y, scale = _forward(x, weight, eps)
        ctx.save_for_backward(x, weight, scale)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        x, weight, scale = ctx.saved_tensors
        if not ctx.in_cpp:
            return *_backward(grads[0], x, weight, scale), None
        grad, grad_x, weight_math = grads[0].contiguous(), torch.empty_like(x), _fp32(weight)
        grad_weight = x.new_empty(weight.shape, dtype=torch.float32)
        cpp.rms_norm_backward(
            x.dtype == torch.bfloat16,
            scale.numel(),
            x.shape[-1],
            address(grad),
            address(x),
            address(weight_math),
            address(scale),
            address(grad_x),
            address(grad_weight),
        )
        return grad_x, grad_weight.to(weight.dtype), None


def _fp32(weight: torch.Tensor) -> torch.Tensor:
    return weight.detach().to(torch.float32).contiguous()


def _forward(x: torch.Tensor, weight: torch.Tensor, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The norm, and 1 / length of each row for the backward pass."""
    math = torch.promote_types(x.dtype, torch.float32)
    x_math = x.to(math)
    scale = x_math.square().mean(-1, keepdim=True).add_(eps).rsqrt_()
    return (x_math * scale).mul_(weight.to(math)).to(x.dtype), scale


def _backward(
    grad: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of x and of the weight."""
    grad = grad.to(scale.dtype)
    normalised = x.to(scale.dtype) * scale
    grad_weight = (grad * normalised).reshape(-1, weight.numel()).sum(0)
    grad_normalised = grad * weight.to(scale.dtype)
    # The norm takes away the component of the gradient that only changes the length of x.
    along = (grad_normalised * normalised).mean(-1, keepdim=True)
    grad_x = grad_normalised.sub_(normalised.mul_(along)).mul_(scale)
    return grad_x.to(x.dtype), grad_weight.to(weight.dtype)
