"""What the tests of kernels share: inputs, and gradients of a plain float64 formula to compare with."""

import itertools
from collections.abc import Callable, Sequence

import torch

# Largest relative error of rounding a value to the type.
ROUNDING = {
    torch.float64: 2.0**-53,
    torch.float32: 2.0**-24,
    torch.bfloat16: 2.0**-8,
    torch.float16: 2.0**-11,
}


def normal_tensor(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Reproducible normal numbers, rounded to `dtype`; the same on every device."""
    generator = torch.Generator("cpu").manual_seed(seed)
    numbers = torch.randn(shape, generator=generator, dtype=torch.float64, device="cpu")
    return numbers.to(torch.empty(0).device, dtype)


def value_and_gradients(
    function: Callable[..., torch.Tensor], inputs: Sequence[torch.Tensor], weights: torch.Tensor
) -> list[torch.Tensor]:
    """function(*inputs) and the gradients of sum(weights * function(*inputs)), all in float64."""
    leaves = [tensor.detach().clone().requires_grad_() for tensor in inputs]
    value = function(*leaves)
    gradients = torch.autograd.grad((value.double() * weights).sum(), leaves)
    return [value.detach().double(), *(gradient.double() for gradient in gradients)]


def largest_error(found: torch.Tensor, exact: torch.Tensor) -> float:
    """Largest deviation, relative to the largest exact value; 0 where both are zeros, nan if there is one."""
    assert found.shape == exact.shape, (found.shape, exact.shape)
    if not found.any() and not exact.any():
        return 0.0
    return ((found - exact).abs().max() / exact.abs().max()).item()


def most_bytes(call: Callable[[], object]) -> int:
    """The most memory that tensors take at a time while it runs, beyond what they took before."""
    if torch.empty(0).device.type == "cuda":
        call()  # What libraries keep for themselves from the first call on.
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        call()
        return torch.cuda.max_memory_allocated() - before
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        call()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    sizes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return max(itertools.accumulate(sizes))


def assert_as_exact_as(
    kernel: Callable[..., torch.Tensor],
    formula: Callable[..., torch.Tensor],
    inputs: Sequence[torch.Tensor],
    roundings: float,
) -> None:
    """Compares value and gradients of a kernel with a float64 formula on the same (rounded) inputs.

    Args:
        roundings: how many roundings of the inputs' type the largest error may be.
    """
    exact_inputs = [tensor.double() for tensor in inputs]
    weights = normal_tensor(99, *formula(*exact_inputs).shape)
    # The incoming gradient is rounded to the kernel's type: let both sides start from the same one.
    weights = weights.to(inputs[0].dtype).double()
    found = value_and_gradients(kernel, inputs, weights)
    exact = value_and_gradients(formula, exact_inputs, weights)
    errors = [largest_error(one, other) for one, other in zip(found, exact, strict=True)]
    # Not the largest of them: `max` may pass over a nan.
    assert all(error <= roundings * ROUNDING[inputs[0].dtype] for error in errors), errors
