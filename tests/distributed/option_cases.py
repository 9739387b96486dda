"""Compiled blocks and 8-bit products on 2 ranks; what each case computes is left for test_options.py.

Usage: python option_cases.py FOLDER
"""

import sys
from pathlib import Path
from typing import get_args

import torch
from launch import fork_ranks
from layouts import Case, source_of
from steps import Layouts, keep, run_case

from megasbp.parallel.config import ParallelConfig
from megasbp.parallel.fp8 import Scaling
from megasbp.parallel.runtime import Runtime

RANKS = 2
LAYOUTS = (
    ParallelConfig(),
    ParallelConfig(tensor=2),
    ParallelConfig(context=2),
    ParallelConfig(pipeline=2),
)
COMPILED = [Case(layout, "untied, grouped queries", "fp32", compiled=True) for layout in LAYOUTS]
IN_FP8 = [
    Case(layout, "untied, grouped queries", "bf16", fp8=scaling)
    for layout in LAYOUTS
    for scaling in get_args(Scaling)
]


def main(folder: Path) -> None:
    started = Runtime.start()
    laid_out = Layouts(started)
    sources = {"ragged": source_of("ragged", folder)}
    for case in (*IN_FP8, *COMPILED):
        torch._dynamo.reset()
        runtime = laid_out(case.parallel)
        keep(runtime, run_case(case, runtime, sources), folder / str(case))
    started.close()


if __name__ == "__main__":
    fork_ranks(main, RANKS, Path(sys.argv[1]))
