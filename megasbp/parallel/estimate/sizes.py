"""The numbers of a layout that every estimate starts from."""

from dataclasses import dataclass

from megasbp.model.config import ModelConfig
from megasbp.parallel.config import ParallelConfig
from megasbp.parallel.estimate.pipeline import most_in_flight
from megasbp.parallel.recompute import Mode
from megasbp.parallel.stages import stage_layers, stages_of_rank


@dataclass(frozen=True)
class Part:
    """A stage of the model that a rank holds; without a pipeline the whole model.

    Attributes:
        layers: blocks.
        first: whether it holds the embedding.
        last: whether it holds the final norm, the output layer and the loss.
        receives, sends: whether the stage before, or behind, lies on another rank.
    """

    layers: int
    first: bool = True
    last: bool = True
    receives: bool = False
    sends: bool = False


@dataclass(frozen=True)
class Sizes:
    """One rank's share of one optimiser step.

    Attributes:
        parts: the stages of the model that it holds.
        in_flight: passes through one of its stages whose activations it holds together, at most.
        replicate, shard, context, tensor, pipeline: ranks of each axis of the mesh.
        sequence_length: tokens of a row.
        micro_batch: rows of a forward pass.
        micro_batches: forward passes of a step.
        element: bytes of a number in the compute type: 2 for bf16, 4 for fp32.
        checkpointing: of activations.
    """

    model: ModelConfig
    parts: tuple[Part, ...]
    in_flight: int
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
        place: int = 0,
        sequence_length: int,
        global_batch: int,
        micro_batch: int,
        element: int,
        checkpointing: Mode,
    ) -> "Sizes":
        """Of ranks that the layout divides, and a global batch that their micro-batches divide.

        Args:
            place: in the pipeline, 0 <= place < parallel.pipeline.
        """
        shard = ranks // parallel.unit
        micro_batches = global_batch // (parallel.replicate * shard * micro_batch)
        layers = stage_layers(model, sequence_length, parallel.stages)
        held = stages_of_rank(parallel, place)
        last = parallel.stages - 1
        parts = tuple(
            Part(
                layers=len(layers[stage]),
                first=stage == 0,
                last=stage == last,
                receives=stage > 0 and stage - 1 not in held,
                sends=stage < last and stage + 1 not in held,
            )
            for stage in held
        )
        return cls(
            model=model,
            parts=parts,
            in_flight=most_in_flight(parallel, place, micro_batches),
            replicate=parallel.replicate,
            shard=shard,
            context=parallel.context,
            tensor=parallel.tensor,
            pipeline=parallel.pipeline,
            sequence_length=sequence_length,
            micro_batch=micro_batch,
            micro_batches=micro_batches,
            element=element,
            checkpointing=checkpointing,
        )

    @property
    def layers(self) -> int:
        """Blocks of this rank."""
        return sum(part.layers for part in self.parts)

    @property
    def first(self) -> bool:
        """Whether the embedding is here."""
        return any(part.first for part in self.parts)

    @property
    def last(self) -> bool:
        """Whether the loss is here."""
        return any(part.last for part in self.parts)

    @property
    def accumulates(self) -> bool:
        """Whether parameters stay gathered, and gradients whole, over several micro-batches."""
        return self.micro_batches > 1 or self.pipeline > 1

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
