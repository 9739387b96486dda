"""The Triton kernels in every config that may be tried, on this GPU: what the tables in kernels/gpu rest on.

python tools/benchmark.py tune --launches "attention forward" "swiglu backward"

The first side is a kernel's own config, the fastest other comes next to it. Configs are compiled by several
processes first. A launch of "attention backward" runs both of its kernels, one of them in the config named.
"""

import argparse
import functools
import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch

from benchmarks.kernel_timing import seconds
from benchmarks.measuring import OURS, Measure, Side, interleave
from megasbp.errors import InputError

PACKAGES = ("megasbp", "torch", "triton")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of this subject."""
    parser.add_argument("--launches", nargs="+", metavar="NAME", help="only these (all)")
    parser.add_argument("--rows", type=int, default=8, help="of 4,096 tokens (%(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="of every config, in turn (%(default)s)")
    parser.add_argument("--compilers", type=int, default=os.cpu_count() or 1, help="processes (%(default)s)")


def measure(options: argparse.Namespace, folder: Path) -> list[Measure]:
    """Seconds of every launch in each config."""
    if not torch.cuda.is_available():
        raise InputError("tune needs a GPU, and torch sees no CUDA device; kernel_builds.py compiles without")
    from benchmarks.kernel_launches import LAUNCHES

    launches = {launch.name: launch for launch in LAUNCHES if launch.candidates}
    names = options.launches or list(launches)
    if unknown := [name for name in names if name not in launches]:
        raise InputError(f"--launches {unknown[0]!r}; allowed: {', '.join(map(repr, launches))}")
    jobs = [(name, place) for name in names for place in range(len(launches[name].candidates))]
    # A process that began with this one's CUDA would not work.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(options.compilers, len(jobs)), context) as compilers:
        problems = dict(zip(jobs, compilers.map(_problem, *zip(*jobs, strict=True)), strict=True))
    measures = []
    for name in names:
        call = launches[name].prepare(options.rows, "cuda")
        calls: dict[str, Callable[[], float]] = {OURS: functools.partial(seconds, call, "cuda")}
        missing = {}
        for place, config in enumerate(launches[name].candidates):
            label = f"{config.blocks} w{config.warps} s{config.stages}"
            if problem := problems[name, place]:
                missing[label] = problem
            else:
                calls[label] = functools.partial(seconds, functools.partial(call, config), "cuda")
        values = interleave(calls, options.repeats)
        others = sorted((Side(values[label]).median, label) for label in calls if label != OURS)
        order = [OURS, *(label for _, label in others)]
        sides = {label: Side(values[label]) for label in order}
        sides |= {label: Side(missing=problem) for label, problem in missing.items()}
        measures.append(Measure(name, "s", False, sides))
    return measures


def _problem(name: str, place: int) -> str:
    """Compiles one config by a small launch; says why it cannot run, or nothing."""
    from benchmarks.kernel_launches import LAUNCHES

    launch = next(launch for launch in LAUNCHES if launch.name == name)
    call: Callable[..., Any] = launch.prepare(1, "cuda")
    try:
        call(launch.candidates[place])
        torch.cuda.synchronize()
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:200]
    return ""
