"""Blocks are dealt out to the stages so that the slowest stage is as fast as whole blocks allow."""

import itertools

import pytest

from megasbp.model.config import ModelConfig
from megasbp.model.flops import flops_per_token
from megasbp.parallel.config import ParallelConfig, layout_problem, schedule_problem
from megasbp.parallel.stages import stage_layers, stages_of_rank

LENGTH = 64


def model(layers: int, vocabulary: int) -> ModelConfig:
    return ModelConfig(
        vocabulary_size=vocabulary,
        layers=layers,
        width=16,
        heads=4,
        kv_heads=4,
        head_dim=8,
        feed_forward=32,
        maximum_positions=LENGTH,
    )


def slowest(config: ModelConfig, counts: tuple[int, ...]) -> float:
    """Floating-point operations of the largest stage."""
    head = 6.0 * config.vocabulary_size * config.width
    block = (flops_per_token(config, LENGTH, causal=True) - head) / config.layers
    return max(block * count + head * (stage == len(counts) - 1) for stage, count in enumerate(counts))


# Output layers from a fraction of a block to several blocks.
@pytest.mark.parametrize("vocabulary", [64, 512, 2048, 8192])
@pytest.mark.parametrize(("layers", "stages"), [(1, 1), (5, 2), (7, 3), (9, 4), (8, 8), (11, 5)])
def test_no_other_division_has_a_faster_slowest_stage(vocabulary: int, layers: int, stages: int) -> None:
    config = model(layers, vocabulary)
    ranges = stage_layers(config, LENGTH, stages)
    assert [layer for part in ranges for layer in part] == list(range(layers))
    found = tuple(len(part) for part in ranges)
    assert min(found) >= 1
    others = itertools.product(range(1, layers + 1), repeat=stages)
    best = min(slowest(config, counts) for counts in others if sum(counts) == layers)
    assert slowest(config, found) == best


def test_the_output_layer_takes_blocks_from_the_last_stage() -> None:
    large = [len(part) for part in stage_layers(model(8, 8192), LENGTH, 2)]
    small = [len(part) for part in stage_layers(model(8, 64), LENGTH, 2)]
    assert small == [4, 4]
    assert large[1] < 4


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("1f1b", [[0], [1], [2]]),
        ("gpipe", [[0], [1], [2]]),
        ("interleaved_1f1b", [[0, 3], [1, 4], [2, 5]]),
        ("interleaved_zero_bubble", [[0, 3], [1, 4], [2, 5]]),
        ("zbv_zero_bubble", [[0, 5], [1, 4], [2, 3]]),
        ("dualpipe_v", [[0, 5], [1, 4], [2, 3]]),
    ],
)
def test_stages_of_the_ranks(schedule: str, expected: list[list[int]]) -> None:
    parallel = ParallelConfig(pipeline=3, schedule=schedule)
    assert [stages_of_rank(parallel, rank) for rank in range(3)] == expected
    assert parallel.stages == 3 * len(expected[0])


def test_more_stages_than_layers() -> None:
    parallel = ParallelConfig(pipeline=2, schedule="interleaved_1f1b", stages_per_rank=3)
    assert layout_problem(parallel, model(6, 64), LENGTH, 2) is None
    problem = layout_problem(parallel, model(5, 64), LENGTH, 2)
    assert (
        problem is not None
        and "makes 6 stages, but model.layers is 5; set model.layers to at least 6" in problem
    )


@pytest.mark.parametrize(
    ("schedule", "runs", "refused"),
    [
        ("gpipe", (1, 2, 7), {}),
        ("1f1b", (4, 5, 9), {1: 4, 3: 4}),
        ("interleaved_1f1b", (1, 3, 4, 7, 8, 10, 12), {9: 8, 11: 10, 13: 12}),
        ("zbv_zero_bubble", (1, 2, 8), {}),
        ("dualpipe_v", (8, 9), {1: 8, 7: 8}),
    ],
)
def test_micro_batches_that_a_schedule_cannot_run(
    schedule: str, runs: tuple[int, ...], refused: dict[int, int]
) -> None:
    parallel = ParallelConfig(pipeline=4, schedule=schedule)
    # Rows of a step on 2 ranks that read.
    assert all(schedule_problem(parallel, 6 * count, 3, 2) is None for count in runs)
    for count, nearest in refused.items():
        problem = schedule_problem(parallel, 6 * count, 3, 2)
        assert problem is not None and f"run {count} micro-batches" in problem
        assert f"set training.global_batch to {6 * nearest}" in problem
        assert schedule_problem(parallel, 6 * nearest, 3, 2) is None
    assert schedule_problem(ParallelConfig(schedule=schedule), 6, 3, 2) is None


@pytest.mark.parametrize(
    ("schedule", "global_batch", "micro_batch", "mend"),
    [
        # 8 rows on each of 2 ranks that read: of 4 they are 2 micro-batches, of 2 they are 4.
        ("1f1b", 16, 4, "set synthesizer.global_batch to 32, or synthesizer.micro_batch to 2"),
        # 18 rows: 9 micro-batches of 2, but 6 of 3.
        ("interleaved_1f1b", 36, 2, "set synthesizer.global_batch to 32, or synthesizer.micro_batch to 3"),
        # Fewer rows than ranks of the pipeline.
        ("1f1b", 4, 1, "set synthesizer.global_batch to 8"),
    ],
)
def test_the_mend_names_both_sizes_of_a_step_where_both_can_be(
    schedule: str, global_batch: int, micro_batch: int, mend: str
) -> None:
    parallel = ParallelConfig(pipeline=4, schedule=schedule)
    problem = schedule_problem(parallel, global_batch, micro_batch, 2, "synthesizer")
    assert problem is not None and problem.endswith(f"micro-batches a step; {mend}")
