"""The numbers of a layout that every estimate starts from."""

from dataclasses import dataclass

from megasbp.model.config import ModelConfig
from megasbp.parallel.config import ParallelConfig
from megasbp.parallel.recompute import Mode


@dataclass(frozen=True)
class Stage:
    """The part of a model that one rank of a pipeline holds.

    Attributes:
        layers: blocks.
        first: whether it holds the embedding.
        last: whether it holds the final norm, the output layer and the loss.
        in_flight: micro-batches whose activations it holds together.
    """

    layers: int
    first: bool = True
    last: bool = True
    in_flight: int = 1


@dataclass(frozen=True)
class Sizes:
    """One rank's share of one optimiser step.

    Attributes:
        replicate, shard, context, tensor, pipeline: ranks of each axis of the mesh.
        sequence_length: tokens of a row.
        micro_batch: rows of a forward pass.
        micro_batches: forward passes of a step.
        element: bytes of a number in the compute type: 2 for bf16, 4 for fp32.
        checkpointing: of activations.
    """

    model: ModelConfig
    stage: Stage
    replicate: int
    shard: int
    context: int
    tensor: int
    pipeline: int
    sequence_length: int
    micro_batch: int
    micro_batches: int
    element: int
    checkpointing: Mode

    @classmethod
    def of(
        cls,
        model: ModelConfig,
        parallel: ParallelConfig,
        ranks: int,
        *,
        stage: Stage | None = None,
        sequence_length: int,
        global_batch: int,
        micro_batch: int,
        element: int,
        checkpointing: Mode,
    ) -> "Sizes":
        """Of ranks that the layout divides, and a global batch that their micro-batches divide.

        Args:
            stage: the whole model unless given.
        """
        shard = ranks // parallel.unit
        return cls(
            model=model,
            stage=stage or Stage(model.layers),
            replicate=parallel.replicate,
            shard=shard,
            context=parallel.context,
            tensor=parallel.tensor,
            pipeline=1,
            sequence_length=sequence_length,
            micro_batch=micro_batch,
            micro_batches=global_batch // (parallel.replicate * shard * micro_batch),
            element=element,
            checkpointing=checkpointing,
        )

    @property
    def ranks(self) -> int:
        """Of the whole run."""
        return self.replicate * self.sharing * self.tensor * self.pipeline

    @property
    def sharing(self) -> int:
        """Ranks that FSDP2 divides each parameter among: those that share rows share parameters too."""
        return self.shard * self.context

    @property
    def tokens(self) -> int:
        """Of a micro-batch, those that this rank and its neighbours of the tensor axis compute."""
        return self.micro_batch * self.sequence_length // self.context
