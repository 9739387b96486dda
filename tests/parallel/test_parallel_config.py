"""Layouts that a model or a number of ranks cannot have are refused with the nearest that they can."""

import pytest
from pydantic import ValidationError

from megasbp.model.config import ModelConfig
from megasbp.parallel.config import ParallelConfig, layout_problem, rank_problem

MODEL = ModelConfig(
    vocabulary_size=64,
    layers=1,
    width=16,
    heads=12,
    kv_heads=4,
    head_dim=8,
    feed_forward=32,
    maximum_positions=64,
)


@pytest.mark.parametrize(
    ("tensor", "length", "said"),
    [
        (3, 24, "does not divide model.kv_heads 4; set it to 2, or make model.kv_heads 3"),
        (8, 24, "does not divide model.heads 12; set it to 4, or make model.heads 16"),
    ],
)
def test_sizes_that_the_ranks_cannot_share(tensor: int, length: int, said: str) -> None:
    problem = layout_problem(ParallelConfig(tensor=tensor), MODEL, length, 24)
    assert problem == f"parallel.tensor is {tensor}, which {said}"


@pytest.mark.parametrize(
    ("context", "tensor", "length", "nearest"),
    [(1, 4, 26, 24), (2, 1, 30, 32), (2, 4, 28, 32), (4, 1, 8, None)],
)
def test_sequences_that_do_not_divide(context: int, tensor: int, length: int, nearest: int | None) -> None:
    problem = layout_problem(ParallelConfig(context=context, tensor=tensor), MODEL, length, 24)
    if nearest is None:
        assert problem is None
    else:
        assert problem is not None and f"sequences of {length} do not divide" in problem
        assert f"make their length {nearest}, or lower one" in problem


def test_ranks_that_are_no_multiple_of_the_layout() -> None:
    layout = ParallelConfig(replicate=2, tensor=4)
    assert layout_problem(layout, MODEL, 24, 8) is None
    for ranks, nearest in ((1, 8), (12, 16), (20, 16), (21, 24)):
        problem = rank_problem(layout, ranks)
        assert problem is not None and problem == layout_problem(layout, MODEL, 24, ranks)
        assert f"does not divide the {ranks} processes; start {nearest}, or lower" in problem


@pytest.mark.parametrize(
    ("layout", "said"),
    [
        ({"tensor": 1}, "tensor 1 exchanges nothing; set tensor to 2, or leave it out"),
        (
            {"tensor": 2, "pipeline": 2, "schedule": "dualpipe_v"},
            "'dualpipe_v', which defers the gradients of the weights; set schedule to 'interleaved_1f1b'",
        ),
    ],
)
def test_tensor_ranks_that_cannot_exchange_while_they_compute(layout: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match="asynchronous_tensor") as refused:
        ParallelConfig.model_validate({**layout, "asynchronous_tensor": True})
    assert said in str(refused.value)
    # One rank of a pipeline defers nothing.
    ParallelConfig.model_validate({"tensor": 2, "schedule": "dualpipe_v", "asynchronous_tensor": True})
