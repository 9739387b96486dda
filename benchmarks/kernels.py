"""Kernels of the model beside plain PyTorch, torch.compile and Liger: bytes a second, of what must be moved.

On a GPU (Triton) or, without one, on the CPU (C++). Bytes are counted, not measured: each input read once,
each output written once; a kernel that moves more is slower by that. The ceiling is torch's copy of a large
tensor, measured in the same run. Liger runs on a GPU only.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.kernel_cases import CASES, Case
from benchmarks.kernel_timing import copy_rate, seconds
from benchmarks.measuring import OURS, Measure, Side, interleave, not_installed
from megasbp.errors import InputError

PACKAGES = ("megasbp", "torch", "triton", "liger-kernel")
_COMPILED = "torch.compile"
_LIGER = "liger-kernel"
# Of the copy's rate, on a GPU.
_TARGET_SHARE = 0.88


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of this subject."""
    names = [case.name for case in CASES]
    parser.add_argument("--kernels", nargs="+", default=names, metavar="NAME", help=f"of {', '.join(names)}")
    parser.add_argument("--device", choices=("auto", "cuda", "cpu"), default="auto")
    parser.add_argument("--tokens", type=int, help="of a call (32768 on a GPU, 1024 on a CPU)")
    parser.add_argument("--repeats", type=int, default=5, help="of every side, in turn (%(default)s)")


def measure(options: argparse.Namespace, folder: Path) -> list[Measure]:
    """Every kernel, forwards and backwards."""
    known = {case.name: case for case in CASES}
    if unknown := [name for name in options.kernels if name not in known]:
        raise InputError(f"--kernels {unknown[0]}; allowed: {', '.join(known)}")
    device = options.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError(
            "--device cuda, and torch sees no CUDA device; --device cpu measures the C++ kernels"
        )
    tokens = options.tokens or (32_768 if device == "cuda" else 1024)
    ceiling = copy_rate(device)
    measures = []
    for name in options.kernels:
        measures += _measures(known[name], device, tokens, ceiling, options.repeats)
    return measures


def _measures(case: Case, device: str, tokens: int, ceiling: float, repeats: int) -> list[Measure]:
    sides: dict[str, Callable[..., Any] | str] = {
        OURS: case.ours,
        "torch": case.plain,
        _COMPILED: torch.compile(case.plain, dynamic=False),
    }
    if case.liger is not None:
        sides[_LIGER] = "runs on a GPU" if device == "cpu" else not_installed("liger_kernel", _LIGER)
        if not sides[_LIGER]:
            from liger_kernel.transformers import functional as liger

            sides[_LIGER] = case.liger(liger)
    inputs = case.inputs(tokens, device)
    measures = []
    for direction, moved in (("forward", case.forward_bytes), ("backward", case.backward_bytes)):
        calls = {
            name: _timed(_call(side, inputs, direction), device, moved * tokens)
            for name, side in sides.items()
            if not isinstance(side, str)
        }
        values = interleave(calls, repeats)
        measures.append(
            Measure(
                name=f"{case.name} {direction}",
                unit="B/s",
                higher_is_better=True,
                sides={
                    name: Side(missing=side) if isinstance(side, str) else _side(values[name], ceiling)
                    for name, side in sides.items()
                },
                target_ratios={_COMPILED: 1.0} if device == "cuda" else {},
                target_limit=_TARGET_SHARE * ceiling if device == "cuda" else None,
            )
        )
    return measures


def _timed(call: Callable[[], Any], device: str, moved: int) -> Callable[[], float]:
    return lambda: moved / seconds(call, device)


def _side(values: list[float], ceiling: float) -> Side:
    side = Side(values)
    side.facts = {"share_of_copy": side.median / ceiling}
    return side


def _call(
    function: Callable[..., Any], inputs: tuple[torch.Tensor, ...], direction: str
) -> Callable[[], Any]:
    """One pass in one direction; the gradients that come in are made once."""
    if direction == "forward":
        return lambda: function(*inputs)
    results = function(*inputs)
    results = results if isinstance(results, tuple) else (results,)
    grads = [torch.randn_like(result) for result in results]
    leaves = [tensor for tensor in inputs if tensor.requires_grad]
    return lambda: torch.autograd.grad(results, leaves, grads, retain_graph=True)
