"""Operators of torch's dispatcher: torch.compile, selective checkpointing and fake tensors see them whole."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import library

_LIBRARY = library.Library("megasbp", "DEF")


def custom_op(fake: Callable[..., Any]) -> Callable[[Callable[..., Any]], Any]:
    """Makes `torch.ops.megasbp.NAME` of a function that mutates none of its arguments.

    torch's own decorator of this name does the same with twice the overhead of a call.

    Args:
        fake: results of the right shapes, types and strides, of the same arguments.

    Returns:
        A decorator; its result is called like the function. Give it gradients with `differentiable`.
    """
    return _define(fake, ())


def mutating_op(*mutated: str) -> Callable[[Callable[..., Any]], Any]:
    """The same of a function that writes to the named arguments, returns nothing and has no gradient."""
    return _define(lambda *arguments: None, mutated)


def _define(fake: Callable[..., Any], mutated: tuple[str, ...]) -> Callable[[Callable[..., Any]], Any]:
    def define(function: Callable[..., Any]) -> Any:
        name = function.__name__.lstrip("_")
        _LIBRARY.define(name + library.infer_schema(function, mutates_args=mutated))
        _LIBRARY.impl(name, function, "CompositeExplicitAutograd")
        _LIBRARY.impl(name, _on_its_device(function), "CUDA")
        library.register_fake(f"megasbp::{name}", fake, lib=_LIBRARY)
        return getattr(torch.ops.megasbp, name).default

    return define


def _on_its_device(function: Callable[..., Any]) -> Callable[..., Any]:
    """Run with the device of its first argument, a tensor, as the current one, where Triton launches."""

    @functools.wraps(function)
    def run(*arguments: Any) -> Any:
        with torch.cuda.device_of(arguments[0]):
            return function(*arguments)

    return run


def differentiable(operator: Any, setup: Callable[..., None], backward: Callable[..., Any]) -> None:
    """Gives an operator gradients.

    Args:
        setup: setup(ctx, inputs, output) keeps what the backward pass needs.
        backward: backward(ctx, *gradients of outputs) -> gradients of inputs. Of several outputs, one that
            nothing used has the gradient None.
    """

    def keep(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.set_materialize_grads(False)
        setup(ctx, inputs, output)

    def gradients(ctx: Any, *grads: torch.Tensor | None) -> Any:
        if all(grad is None for grad in grads):
            return (None,) * len(operator._schema.arguments)
        return backward(ctx, *grads)

    name = operator.name().removesuffix(".default")
    library.register_autograd(name, gradients, setup_context=keep, lib=_LIBRARY)


def contiguous_like(x: torch.Tensor) -> torch.Tensor:
    """Memory of the shape and type of `x`, its numbers one after the other."""
    return torch.empty_like(x, memory_format=torch.contiguous_format)
