"""The recipe's section [parallel]: how the ranks of a run share one model."""

import math

from pydantic import BaseModel, ConfigDict, Field

from megasbp.model.config import ModelConfig


class ParallelConfig(BaseModel):
    """A layout of the ranks. Those that nothing here takes share the data, and the parameters (FSDP2).

    Attributes:
        replicate: copies of the parameters (HSDP): each is sharded over ranks of its own, which on a cluster
            gather it without crossing to other hosts; gradients are summed over the copies.
        context: ranks that share each row: each computes some of its tokens, for contexts whose activations
            one rank does not hold.
        tensor: ranks that share each matrix and, between the blocks, each sequence. They are neighbours in
            rank, so that on a cluster they are GPUs of one host.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    replicate: int = Field(1, ge=1)
    context: int = Field(1, ge=1)
    tensor: int = Field(1, ge=1)

    @property
    def unit(self) -> int:
        """The number of ranks is a multiple of this."""
        return self.replicate * self.context * self.tensor


DATA_ONLY = ParallelConfig()


def rank_problem(parallel: ParallelConfig, ranks: int) -> str | None:
    """Why so many ranks cannot be laid out so, and the nearest legal values; None where they can."""
    unit = parallel.unit
    if ranks % unit == 0:
        return None
    return (
        f"parallel.replicate {parallel.replicate} x parallel.context {parallel.context} x parallel.tensor "
        f"{parallel.tensor} does not divide the {ranks} processes; start "
        f"{max(1, round(ranks / unit)) * unit}, or lower one of the three"
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
    }
    pieces = 2 * parallel.context if parallel.context > 1 else 1
    part = math.lcm(pieces, parallel.context * tensor)
    if sequence_length % part:
        return (
            f"sequences of {sequence_length} do not divide into the parts of parallel.context "
            f"{parallel.context} and parallel.tensor {tensor}; make their length "
            f"{max(1, round(sequence_length / part)) * part}, or lower one of the two"
        )
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
