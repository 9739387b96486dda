"""Which blocks of a model are a pipeline's stage, and which stages are a rank's."""

from megasbp.model.config import ModelConfig
from megasbp.model.flops import flops_per_token
from megasbp.parallel.config import V_SHAPED, ParallelConfig


def stage_layers(model: ModelConfig, sequence_length: int, stages: int) -> list[range]:
    """The blocks of each stage, as equal in floating-point operations as whole blocks can be.

    The output layer counts for the last stage (a vocabulary of 49,152 at width 3072 is as much work as one
    and a half blocks), the embedding, a look-up, for nothing. Each block goes to the stage that has the least
    so far, the earliest of equals: for equal pieces that makes the largest stage as small as can be. Every
    stage has a block.

    Args:
        stages: at most `model.layers`.
    """
    head = 6.0 * model.vocabulary_size * model.width
    block = (flops_per_token(model, sequence_length, causal=True) - head) / model.layers
    counts = [1] * stages
    costs = [block] * (stages - 1) + [block + head]
    for _ in range(model.layers - stages):
        least = costs.index(min(costs))
        counts[least] += 1
        costs[least] += block
    firsts = [sum(counts[:stage]) for stage in range(stages)]
    return [range(first, first + count) for first, count in zip(firsts, counts, strict=True)]


def stages_of_rank(parallel: ParallelConfig, rank: int) -> list[int]:
    """The stages that a rank of a pipeline holds, rising."""
    ranks, stages = parallel.pipeline, parallel.stages
    if parallel.pipeline > 1 and parallel.schedule in V_SHAPED:
        return [rank, stages - 1 - rank]
    return list(range(rank, stages, ranks))
