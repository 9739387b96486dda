"""The recipe's section [parallel]: how the ranks of a run share one model."""

import math
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from megasbp.model.config import ModelConfig

Schedule = Literal[
    "gpipe",
    "1f1b",
    "interleaved_1f1b",
    "interleaved_zero_bubble",
    "zbv_zero_bubble",
    "dualpipe_v",
]
# Stages that a rank holds in each schedule; None where the recipe says.
_STAGES_PER_RANK: dict[Schedule, int | None] = {
    "gpipe": 1,
    "1f1b": 1,
    "interleaved_1f1b": None,
    "interleaved_zero_bubble": None,
    "zbv_zero_bubble": 2,
    "dualpipe_v": 2,
}
# The last stages lie on the rank of the first ones.
V_SHAPED = frozenset({"zbv_zero_bubble", "dualpipe_v"})
# These compute the gradients of a stage's weights later than those of its inputs.
DEFERRING = frozenset({"interleaved_zero_bubble", "zbv_zero_bubble", "dualpipe_v"})


class ParallelConfig(BaseModel):
    """A layout of the ranks. Those that nothing here takes share the data, and the parameters (FSDP2).

    Attributes:
        pipeline: ranks that hold different blocks of the model and hand micro-batches on to each other.
        schedule: the order of the micro-batches in a pipeline, by the names of torch.distributed.pipelining.
            "gpipe" runs all forward passes first; "1f1b" keeps fewer activations; the interleaved ones have
            several stages on a rank, and shorter waits; "interleaved_zero_bubble", "zbv_zero_bubble" and
            "dualpipe_v" also defer the gradients of the weights, to fill what is left of the waits.
        stages_per_rank: of the interleaved schedules; of the others it is theirs, 1 or 2.
        replicate: copies of the parameters (HSDP): each is sharded over ranks of its own, which on a cluster
            gather it without crossing to other hosts; gradients are summed over the copies.
        context: ranks that share each row: each computes some of its tokens, for contexts whose activations
            one rank does not hold.
        tensor: ranks that share each matrix and, between the blocks, each sequence. They are neighbours in
            rank, so that on a cluster they are GPUs of one host.
        asynchronous_tensor: sends what the ranks of `tensor` exchange while they compute, on GPUs that reach
            each other's memory. Sums are made in another order.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    pipeline: int = Field(1, ge=1)
    schedule: Schedule = "1f1b"
    stages_per_rank: int = Field(2, ge=1)
    replicate: int = Field(1, ge=1)
    context: int = Field(1, ge=1)
    tensor: int = Field(1, ge=1)
    asynchronous_tensor: bool = False

    @model_validator(mode="after")
    def _something_to_overlap(self) -> Self:
        if self.asynchronous_tensor and self.tensor == 1:
            raise ValueError(
                "asynchronous_tensor is set, but tensor 1 exchanges nothing; set tensor to 2, or leave it out"
            )
        # torch goes through a stage's graph twice, and all ranks would exchange the gradients twice.
        if self.asynchronous_tensor and self.defers_gradients:
            raise ValueError(
                f"asynchronous_tensor does not go with schedule {self.schedule!r}, which defers the "
                "gradients of the weights; set schedule to 'interleaved_1f1b', or leave it out"
            )
        return self

    @property
    def unit(self) -> int:
        """The number of ranks is a multiple of this."""
        return self.pipeline * self.replicate * self.context * self.tensor

    @property
    def stages(self) -> int:
        """Parts that the blocks of the model are cut into."""
        if self.pipeline == 1:
            return 1
        return self.pipeline * (_STAGES_PER_RANK[self.schedule] or self.stages_per_rank)

    @property
    def defers_gradients(self) -> bool:
        """Whether a pipeline computes gradients of weights in passes of their own."""
        return self.pipeline > 1 and self.schedule in DEFERRING


DATA_ONLY = ParallelConfig()


def rank_problem(parallel: ParallelConfig, ranks: int) -> str | None:
    """Why so many ranks cannot be laid out so, and the nearest legal values; None where they can."""
    unit = parallel.unit
    if ranks % unit == 0:
        return None
    return (
        f"parallel.pipeline {parallel.pipeline} x parallel.replicate {parallel.replicate} x "
        f"parallel.context {parallel.context} x parallel.tensor {parallel.tensor} does not divide the "
        f"{ranks} processes; start {max(1, round(ranks / unit)) * unit}, or lower one of the four"
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
    if parallel.stages > model.layers:
        return (
            f"parallel.pipeline {parallel.pipeline} with parallel.schedule {parallel.schedule} makes "
            f"{parallel.stages} stages, but model.layers is {model.layers}; set model.layers to at least "
            f"{parallel.stages}, or lower parallel.pipeline"
        )
    return rank_problem(parallel, ranks)


def schedule_problem(
    parallel: ParallelConfig, global_batch: int, micro_batch: int, readers: int, section: str = "training"
) -> str | None:
    """Why a pipeline's schedule cannot run the micro-batches of a step, and the nearest legal values.

    Args:
        global_batch: rows of a step, a multiple of `micro_batch` rows of each of the readers.
        readers: ranks that read different rows.
        section: of the recipe, which has the two settings.
    """
    rows = global_batch // readers
    micro_batches = rows // micro_batch
    if parallel.pipeline == 1 or _runs(parallel, micro_batches):
        return None
    nearest = min(
        (count for count in range(1, micro_batches + 2 * parallel.stages) if _runs(parallel, count)),
        key=lambda count: (abs(count - micro_batches), count),
    )
    sizes = [size for size in range(1, rows + 1) if rows % size == 0 and _runs(parallel, rows // size)]
    smaller = (
        f", or {section}.micro_batch to {min(sizes, key=lambda size: abs(size - micro_batch))}"
        if sizes
        else ""
    )
    return (
        f"parallel.schedule {parallel.schedule} over {parallel.pipeline} ranks cannot run {micro_batches} "
        f"micro-batches a step; set {section}.global_batch to {nearest * micro_batch * readers}{smaller}"
    )


def _runs(parallel: ParallelConfig, micro_batches: int) -> bool:
    """The rules of torch.distributed.pipelining."""
    if parallel.schedule == "1f1b":
        return micro_batches >= parallel.pipeline
    if parallel.schedule == "dualpipe_v":
        return micro_batches >= parallel.stages
    if parallel.schedule.startswith("interleaved"):
        # Rounds of as many micro-batches as there are ranks, or more, all of one size.
        return micro_batches % max(1, micro_batches // parallel.pipeline) == 0
    return True
