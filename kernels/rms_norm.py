"""Root-mean-square normalisation (Zhang and Sennrich, arXiv 1910.07467), with the addition before it."""

from typing import Any

import torch
from torch import Tensor

from .cpu import address, cpp
from .custom_op import contiguous_like, custom_op, differentiable
from .route import route


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
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
    _check(x, weight)
    return _rms_norm_forward(x, weight, eps)[0]


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """The sum of two tensors, and `rms_norm` of it; on a GPU in one pass.

    Args:
        x, residual: [..., D], of one type, to which the sum is rounded before it is normalised.
        weight, eps: as of `rms_norm`.

    Returns:
        Sum and norm, shape and type of `x`.

    Raises:
        ValueError: the sizes or types do not agree.
    """
    _check(x, weight)
    if residual.shape != x.shape or residual.dtype != x.dtype:
        raise ValueError(
            f"residual is {residual.dtype} {tuple(residual.shape)}, x is {x.dtype} {tuple(x.shape)}; "
            "make them equal"
        )
    if route(x, residual) == "triton":
        total, y, _ = _add_rms_norm_forward(x, residual, weight, eps)
        return total, y
    total = residual + x
    return total, rms_norm(total, weight, eps)


def _check(x: Tensor, weight: Tensor) -> None:
    if weight.shape != x.shape[-1:]:
        raise ValueError(f"weight has shape {tuple(weight.shape)}; allowed: {tuple(x.shape[-1:])}")


@custom_op(fake=lambda x, weight, eps: (contiguous_like(x), _scales_like(x)))
def _rms_norm_forward(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """The norm, and 1 / length of each row for the backward pass."""
    match route(x):
        case "cpp":
            x, weight_math = x.contiguous(), _fp32(weight)
            y, scale = torch.empty_like(x), _scales_like(x)
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
            return y, scale
        case "triton":
            from .gpu import rms_norm as gpu

            return gpu.forward(x.contiguous(), weight.contiguous(), eps)
        case "torch":
            return _forward(x, weight, eps)


@custom_op(fake=lambda grad, x, weight, scale: (contiguous_like(x), torch.empty_like(weight)))
def _rms_norm_backward(grad: Tensor, x: Tensor, weight: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of x and of the weight."""
    match route(x):
        case "cpp":
            grad, x, weight_math = grad.contiguous(), x.contiguous(), _fp32(weight)
            grad_x, grad_weight = torch.empty_like(x), x.new_empty(weight.shape, dtype=torch.float32)
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
            return grad_x, grad_weight.to(weight.dtype)
        case "triton":
            from .gpu import rms_norm as gpu

            return gpu.backward(grad.contiguous(), None, x.contiguous(), weight.contiguous(), scale)
        case "torch":
            return _backward(grad, x, weight, scale)


@custom_op(fake=lambda x, residual, weight, eps: (contiguous_like(x), contiguous_like(x), _scales_like(x)))
def _add_rms_norm_forward(
    x: Tensor, residual: Tensor, weight: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Sum, norm, and 1 / length of each row of the sum."""
    if route(x, residual) == "triton":
        from .gpu import rms_norm as gpu

        return gpu.add_forward(x.contiguous(), residual.contiguous(), weight.contiguous(), eps)
    total = (residual + x).contiguous()
    return total, *_rms_norm_forward(total, weight, eps)


@custom_op(
    fake=lambda grad, grad_total, total, weight, scale: (contiguous_like(total), torch.empty_like(weight))
)
def _add_rms_norm_backward(
    grad: Tensor, grad_total: Tensor, total: Tensor, weight: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of either summand, which are equal, and of the weight."""
    if route(total) == "triton":
        from .gpu import rms_norm as gpu

        return gpu.backward(grad.contiguous(), grad_total.contiguous(), total, weight.contiguous(), scale)
    grad_x, grad_weight = _rms_norm_backward(grad, total, weight, scale)
    return grad_x + grad_total, grad_weight


def _norm_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, weight, _ = inputs
    ctx.save_for_backward(x, weight, output[1])


def _norm_gradients(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
    return *_rms_norm_backward(grads[0], *ctx.saved_tensors), None


def _add_norm_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    total, _, scale = output
    ctx.save_for_backward(total, inputs[2], scale)


def _add_norm_gradients(
    ctx: Any, grad_total: Tensor | None, grad: Tensor | None, _: None
) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
    if grad is None:
        return grad_total, grad_total, None, None
    if grad_total is None:
        grad_x, grad_weight = _rms_norm_backward(grad, *ctx.saved_tensors)
    else:
        grad_x, grad_weight = _add_rms_norm_backward(grad, grad_total, *ctx.saved_tensors)
    return grad_x, grad_x, grad_weight, None


differentiable(_rms_norm_forward, _norm_setup, _norm_gradients)
differentiable(_add_rms_norm_forward, _add_norm_setup, _add_norm_gradients)


def _fp32(weight: Tensor) -> Tensor:
    return weight.detach().to(torch.float32).contiguous()


def _scales_like(x: Tensor) -> Tensor:
    """Memory for 1 / length of each row."""
    return x.new_empty(x.shape[:-1], dtype=torch.promote_types(x.dtype, torch.float32))


def _forward(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    math = torch.promote_types(x.dtype, torch.float32)
    x_math = x.to(math)
    scale = x_math.square().mean(-1, keepdim=True).add_(eps).rsqrt_()
    y = (x_math * scale).mul_(weight.to(math)).to(x.dtype)
    return y.contiguous(), scale.squeeze(-1)


def _backward(grad: Tensor, x: Tensor, weight: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    scale = scale.unsqueeze(-1)
    grad = grad.to(scale.dtype)
    normalised = x.to(scale.dtype) * scale
    grad_weight = (grad * normalised).reshape(-1, weight.numel()).sum(0)
    grad_normalised = grad * weight.to(scale.dtype)
    # The norm takes away the component of the gradient that only changes the length of x.
    along = (grad_normalised * normalised).mean(-1, keepdim=True)
    grad_x = grad_normalised.sub_(normalised.mul_(along)).mul_(scale)
    return grad_x.to(x.dtype).contiguous(), grad_weight.to(weight.dtype)
