"""The recipe's section [parallel]: how the ranks of a run share one model."""

import math

from pydantic import BaseModel, ConfigDict, Field

from megasbp.model.config import ModelConfig


class ParallelConfig(BaseModel):
    """A layout of the ranks. What `tensor` and `replicate` do not take shares data and parameters (FSDP2).

    Attributes:
        replicate: copies of the parameters (HSDP): each is sharded over ranks of its own, which on a cluster
            gather it without crossing to other hosts; gradients are summed over the copies.
        tensor: ranks that share each matrix and, between the blocks, each sequence. They are neighbours in
            rank, so that on a cluster they are GPUs of one host.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    replicate: int = Field(1, ge=1)
    tensor: int = Field(1, ge=1)


DATA_ONLY = ParallelConfig()


def rank_problem(parallel: ParallelConfig, ranks: int) -> str | None:
    """Why so many ranks cannot be laid out so, and the nearest legal values; None where they can."""
    unit = parallel.replicate * parallel.tensor
    if ranks % unit == 0:
        return None
    return (
        f"parallel.replicate {parallel.replicate} x parallel.tensor {parallel.tensor} does not divide the "
        f"{ranks} processes; start {max(1, round(ranks / unit)) * unit}, or lower one of the two"
    )


def layout_problem(
    parallel: ParallelConfig, model: ModelConfig, sequence_length: int, ranks: int
) -> str | None:
    """Why a model cannot be laid out so, and the nearest legal values; None where it can."""
    tensor = parallel.tensor
    divided = {
        "model.heads": model.heads,
        "model.kv_heads": model.kv_heads,
        "model.feed_forward": model.feed_forward,
        "model.vocabulary_size": model.vocabulary_size,
        "the sequence length": sequence_length,
    }
    for name, size in divided.items():
        if size % tensor:
            common = math.gcd(*divided.values())
            legal = [value for value in range(1, common + 1) if common % value == 0]
            nearest = min(legal, key=lambda value: (abs(value - tensor), value))
            return (
                f"parallel.tensor is {tensor}, which does not divide {name} {size}; set it to {nearest}, or "
                f"make {name} {max(1, round(size / tensor)) * tensor}"
            )
    return rank_problem(parallel, ranks)
