"""The cases of the parity matrix on 8 ranks; what each computes is left for test_eight_ranks.py.

Usage: python eight_ranks.py FOLDER
"""

import itertools
import sys
from pathlib import Path

from breaking_source import train_up_to
from launch import fork_ranks
from layouts import SCHEDULES, SOURCES, Case, source_of
from parity_cases import job_of
from steps import GLOBAL_BATCH, Layouts, keep, run_case

from megasbp.parallel.config import ParallelConfig
from megasbp.parallel.runtime import Runtime
from megasbp.training.trainer import train

RANKS = 8
# Three axes of two; what is left of 8 ranks shards the parameters.
_CUBES = [
    ParallelConfig(**dict.fromkeys(axes, 2))
    for axes in (
        *itertools.combinations(("pipeline", "replicate", "context", "tensor"), 3),
        *itertools.combinations(("pipeline", "replicate", "context", "tensor"), 2),
    )
]
LAYOUTS = [*_CUBES, ParallelConfig(pipeline=2, tensor=4), ParallelConfig(pipeline=4)]
_FLAT = [layout for layout in LAYOUTS if layout.pipeline == 1]
_PIPELINED = [layout for layout in LAYOUTS if layout.pipeline > 1]


def _pipelined(layout: ParallelConfig, number: int) -> list[Case]:
    """Every schedule at a layout; tied and untied in turn, so that each layout and each schedule has both."""
    layers = "9 layers" if layout.pipeline == 4 else "5 layers"
    readers = RANKS // (layout.pipeline * layout.context * layout.tensor)
    return [
        Case(
            layout.model_copy(update={"schedule": schedule}),
            f"{'untied' if (number + turn) % 2 else 'tied'}, {layers}",
            "fp32" if turn == number % len(SCHEDULES) else "fp64",
            "pairs" if turn % 3 == 0 else "ragged",
            # DualPipeV wants as many micro-batches as there are stages: two for each rank of the pipeline.
            micro_batch=GLOBAL_BATCH // readers // (2 * layout.pipeline),
        )
        for turn, schedule in enumerate(SCHEDULES)
    ]


CASES = [
    *(Case(layout, f"{kind}, 5 layers", "fp64", "pairs") for layout in _FLAT for kind in ("tied", "untied")),
    *(case for number, layout in enumerate(_PIPELINED) for case in _pipelined(layout, number)),
]


def main(folder: Path) -> None:
    started = Runtime.start()
    own = folder / f"rank {started.rank}"
    own.mkdir()
    sources = {name: source_of(name, own) for name in SOURCES}
    laid_out = Layouts(started)
    for case in CASES:
        runtime = laid_out(case.parallel)
        keep(runtime, run_case(case, runtime, sources), folder / str(case))
    # As the 3B recipe lays its arms out; then as it does its synthesizers, from the other's checkpoint.
    train_up_to(8, job_of(folder / "job"), laid_out(ParallelConfig(replicate=2)))
    train(job_of(folder / "job"), laid_out(ParallelConfig(replicate=2, tensor=2)))
    started.close()


if __name__ == "__main__":
    fork_ranks(main, RANKS, Path(sys.argv[1]))
