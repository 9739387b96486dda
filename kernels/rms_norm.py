"""Root-mean-square normalisation (Zhang and Sennrich, arXiv 1910.07467)."""

from typing import Any

import torch


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
        math = torch.promote_types(x.dtype, torch.float32)
        x_math = x.to(math)
        scale = x_math.square().mean(-1, keepdim=True).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        return (x_math * scale).mul_(weight.to(math)).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        x, weight, scale = ctx.saved_tensors
        grad = grads[0].to(scale.dtype)
        normalised = x.to(scale.dtype) * scale
        grad_weight = (grad * normalised).reshape(-1, weight.numel()).sum(0)
        grad_normalised = grad * weight.to(scale.dtype)
        # The norm takes away the component of the gradient that only changes the length of x.
        along = (grad_normalised * normalised).mean(-1, keepdim=True)
        grad_x = grad_normalised.sub_(normalised.mul_(along)).mul_(scale)
        return grad_x.to(x.dtype), grad_weight.to(weight.dtype), None
