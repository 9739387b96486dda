"""For how many micro-batches a rank of a pipeline holds activations: by torch's own lists of what it does."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, get_args

import pytest
from torch import nn

from megasbp.parallel.config import ParallelConfig, Schedule, schedule_problem
from megasbp.parallel.estimate.pipeline import most_in_flight
from megasbp.parallel.pipeline import _OF_ONE_STAGE, _OF_STAGES
from megasbp.parallel.stages import stages_of_rank


def passes(parallel: ParallelConfig, micro_batches: int) -> dict[int, list[Any]]:
    """What torch has each rank do in a step, in its order."""
    stages = [
        SimpleNamespace(
            stage_index=number,
            num_stages=parallel.stages,
            group_size=parallel.pipeline,
            group_rank=0,
            is_first=number == 0,
            is_last=number == parallel.stages - 1,
            submod=nn.Identity(),
            device=None,
        )
        for number in stages_of_rank(parallel, 0)
    ]
    options: dict[str, Any] = {"n_microbatches": micro_batches, "loss_fn": lambda nats, labels: nats}
    if parallel.schedule in _OF_ONE_STAGE:
        return _OF_ONE_STAGE[parallel.schedule](stages[0], **options).pipeline_order
    return _OF_STAGES[parallel.schedule](stages, **options).pipeline_order


def single(actions: list[Any]) -> Iterator[str]:
    """Kinds of passes: F forward, B backward, I and W for inputs and weights; of two at once each."""
    for action in actions:
        if action is not None:
            for one in getattr(action, "sub_actions", None) or (action,):
                yield one.computation_type.value


def most_held(actions: list[Any]) -> int:
    """Forward passes that are not yet followed by the backward pass which needs their activations last."""
    held = most = 0
    for kind in single(actions):
        held += {"F": 1, "B": -1, "W": -1}.get(kind, 0)
        most = max(most, held)
    assert held == 0
    return most


@pytest.mark.parametrize("schedule", get_args(Schedule))
@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_the_most_that_torch_has_a_rank_hold(schedule: Schedule, ranks: int) -> None:
    compared = 0
    for stages in (2, 3) if schedule.startswith("interleaved") else (2,):
        parallel = ParallelConfig(pipeline=ranks, schedule=schedule, stages_per_rank=stages)
        for micro_batches in (1, 2, 4, 6, 8, 12, 13):
            if schedule_problem(parallel, micro_batches, 1, 1) is not None:
                continue
            found = [most_held(actions) for actions in passes(parallel, micro_batches).values()]
            estimated = [most_in_flight(parallel, place, micro_batches) for place in range(ranks)]
            assert estimated == found, (stages, micro_batches)
            compared += 1
    assert compared >= 3


def test_without_a_pipeline_there_is_one() -> None:
    assert most_in_flight(ParallelConfig(tensor=2), 0, 8) == 1
