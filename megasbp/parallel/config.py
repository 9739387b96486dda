"""The recipe's section [parallel]: how the ranks of a run share one model."""

from pydantic import BaseModel, ConfigDict, Field

from megasbp.model.config import ModelConfig


class ParallelConfig(BaseModel):
    """A layout of the ranks. What tensor parallelism does not take shares the data (FSDP2).

    Attributes:
        tensor: ranks that share each matrix and, between the blocks, each sequence. They are neighbours in
            rank, so that on a cluster they are GPUs of one host.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tensor: int = Field(1, ge=1)


DATA_ONLY = ParallelConfig()


def layout_problem(
    parallel: ParallelConfig, model: ModelConfig, sequence_length: int, ranks: int
) -> str | None:
    """Why a model cannot be laid out so, and the nearest legal values; None where it can."""
    tensor = parallel.tensor
    divided = {
        "the number of ranks": ranks,
        "model.heads": model.heads,
        "model.kv_heads": model.kv_heads,
        "model.feed_forward": model.feed_forward,
        "model.vocabulary_size": model.vocabulary_size,
        "the sequence length": sequence_length,
    }
    for name, size in divided.items():
        if size % tensor:
            legal = [
                value for value in range(1, size + 1) if all(each % value == 0 for each in divided.values())
            ]
            nearest = min(legal, key=lambda value: (abs(value - tensor), value))
            return (
                f"parallel.tensor is {tensor}, which does not divide {name} {size}; set it to {nearest}, or "
                f"make {name} {max(1, round(size / tensor)) * tensor}"
            )
    return None
