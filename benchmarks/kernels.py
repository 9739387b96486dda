"""Kernels of the model beside plain PyTorch, torch.compile and Liger: bytes or operations a second.

On a GPU (Triton) or, without one, on the CPU (C++). Bytes and operations are counted, not measured: each
input read once, each output written once; a kernel that moves more is slower by that. The ceilings are those
of torch's copy of a large tensor and of its product of large bf16 matrices, measured in the same run. Liger
and FlexAttention run on a GPU only.
"""

import argparse
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.kernel_cases import CASES, Case, Tensors
from benchmarks.kernel_timing import copy_rate, product_rate, seconds
from benchmarks.measuring import OURS, Measure, Side, interleave, not_installed
from megasbp.errors import InputError

PACKAGES = ("megasbp", "torch", "triton", "liger-kernel")
_COMPILED = "torch.compile"
_LIGER = "liger-kernel"
# Of the copy's rate, on a GPU, for kernels that multiply no matrices.
_TARGET_SHARE = 0.88


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of this subject."""
    names = [case.name for case in CASES]
    parser.add_argument("--kernels", nargs="+", default=names, metavar="NAME", help=f"of {', '.join(names)}")
    parser.add_argument("--device", choices=("auto", "cuda", "cpu"), default="auto")
    parser.add_argument("--tokens", type=int, help="of a call (32768 or what fits on a GPU, fewer on a CPU)")
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
    ceilings = {False: copy_rate(device), True: product_rate(device)}
    measures = []
    for case in (known[name] for name in options.kernels):
        tokens = options.tokens or (case.tokens if device == "cuda" else case.cpu_tokens)
        measures += _measures(case, device, tokens, ceilings[case.counts_operations], options.repeats)
    return measures


def _measures(case: Case, device: str, tokens: int, ceiling: float, repeats: int) -> list[Measure]:
    sides = _sides(case, device)
    # To each side its own: Liger's gradients may be written over what they are of.
    inputs = {name: case.inputs(tokens, device) for name, side in sides.items() if not isinstance(side, str)}
    for name, given in inputs.items():
        if name != OURS:
            sides[name] = _problem(sides[name], given, list(case.work)[-1]) or sides[name]
    on_gpu = device == "cuda"
    measures = []
    for direction, work in case.work.items():
        calls = {
            name: _timed(_call(side, inputs[name], direction), device, work * tokens)
            for name, side in sides.items()
            if not isinstance(side, str)
        }
        values = interleave(calls, repeats)
        measures.append(
            Measure(
                name=case.name if direction == "both" else f"{case.name} {direction}",
                unit="FLOP/s" if case.counts_operations else "B/s",
                higher_is_better=True,
                sides={
                    name: Side(missing=side) if isinstance(side, str) else _side(values[name], ceiling)
                    for name, side in sides.items()
                },
                target_ratios=dict.fromkeys(_targets(case), 1.0) if on_gpu else {},
                target_limit=_TARGET_SHARE * ceiling if on_gpu and not case.counts_operations else None,
            )
        )
    return measures


def _sides(case: Case, device: str) -> dict[str, Callable[..., Any] | str]:
    """What is compared, by name; a text says why a side cannot run."""
    sides: dict[str, Callable[..., Any] | str] = {OURS: case.ours, "torch": case.plain}
    if case.compiles:
        sides[_COMPILED] = torch.compile(case.plain, dynamic=False)
    if case.liger is not None:
        sides[_LIGER] = "runs on a GPU" if device == "cpu" else not_installed("liger_kernel", _LIGER)
        if not sides[_LIGER]:
            from liger_kernel.transformers import functional as liger

            sides[_LIGER] = case.liger(liger)
    for name, rival in case.rivals.items():
        sides[name] = "runs on a GPU" if device == "cpu" else rival
    return sides


def _problem(side: Any, inputs: Tensors, direction: str) -> str:
    """Why a side cannot run here, or nothing."""
    try:
        _call(side, inputs, direction)()
    except Exception as error:
        return f"failed: {type(error).__name__}: {error}"[:200]
    return ""


def _targets(case: Case) -> list[str]:
    """The sides that ours is not to be slower than."""
    return [*([_COMPILED] if case.compiles else []), *case.rivals]


def _timed(call: Callable[[], Any], device: str, work: float) -> Callable[[], float]:
    return lambda: work / seconds(call, device)


def _side(values: list[float], ceiling: float) -> Side:
    side = Side(values)
    side.facts = {"share_of_ceiling": side.median / ceiling}
    return side


def _call(function: Callable[..., Any], inputs: Tensors, direction: str) -> Callable[[], Any]:
    """One pass in one direction or both; the gradients that come in are made once."""
    if direction == "forward":
        return functools.partial(function, *inputs)
    leaves = [tensor for tensor in inputs if tensor.requires_grad]
    if direction == "both":
        return lambda: torch.autograd.grad(function(*inputs), leaves)
    results = function(*inputs)
    results = results if isinstance(results, tuple) else (results,)
    grads = [torch.randn_like(result) for result in results]
    return lambda: torch.autograd.grad(results, leaves, grads, retain_graph=True)
