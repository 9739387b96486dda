"""One optimiser step on random tokens by the trainer's own functions, without data files and checkpoints."""

import time
from dataclasses import dataclass

import torch

from megasbp.data.batch import Batch
from megasbp.experiment.recipe import Recipe
from megasbp.parallel.parallelize import BlockOptions, parallel_model
from megasbp.parallel.runtime import Runtime
from megasbp.parallel.shards import initialize_shards
from megasbp.training.gradients import accumulate_gradients
from megasbp.training.optimizer import build_optimizer, follow_table, optimizer_step


def random_batch(recipe: Recipe, rows: int, document_tokens: int, seed: int = 0) -> Batch:
    """Rows of random tokens, each with a label.

    Args:
        document_tokens: mean length of a row's documents, whose lengths are exponential; 0: one a row.
    """
    generator = torch.Generator().manual_seed(seed)
    size = recipe.training.sequence_length
    vocabulary = recipe.model.vocabulary_size
    tokens = torch.randint(vocabulary, (rows, size), generator=generator, dtype=torch.int32)
    labels = torch.randint(vocabulary, (rows, size), generator=generator, dtype=torch.int32)
    begins = torch.zeros(rows, size, dtype=torch.bool)
    if document_tokens:
        begins = torch.rand(rows, size, generator=generator) < 1 / document_tokens
    begins[:, 0] = True
    segments = (begins.cumsum(1) - 1).to(torch.int32)
    places = torch.arange(size).expand(rows, size)
    positions = places - torch.where(begins, places, 0).cummax(1).values
    return Batch(tokens, labels, positions.to(torch.int32), segments)


@dataclass(frozen=True)
class StepTimes:
    """Seconds of one step on the slowest rank.

    Attributes:
        gradients: forward and backward passes of all micro-batches.
        update: gradient norm, clipping and AdamW.
    """

    gradients: float
    update: float

    @property
    def total(self) -> float:
        return self.gradients + self.update


class TrainingStep:
    """A recipe's model and optimiser on the ranks of a runtime, weights initialised."""

    def __init__(self, recipe: Recipe, runtime: Runtime) -> None:
        training = recipe.training
        options = BlockOptions(
            training.activation_checkpointing, training.compile, training.fp8, training.attention
        )
        self._recipe, self._runtime = recipe, runtime
        self.model = parallel_model(
            recipe.model,
            runtime,
            training.compute_dtype,
            options,
            training.sequence_length,
            training.z_loss,
        )
        self.optimizer = build_optimizer(self.model, training)
        initialize_shards(self.model, recipe.model, seed=0)
        follow_table(self.model, self.optimizer)
        self.model.train()

    def run(self, batch: Batch) -> StepTimes:
        """Trains on this rank's rows; all ranks call it.

        Raises:
            RuntimeError: loss or gradient is not finite.
        """
        training, runtime = self._recipe.training, self._runtime
        valid = int(runtime.sum_over_data(torch.tensor(batch.valid_tokens)))
        runtime.barrier()
        start = self._now()
        nats = accumulate_gradients(self.model, batch, training.micro_batch, valid, runtime.device)
        middle = self._now()
        measured = optimizer_step(
            self.optimizer, training.learning_rate, nats, valid, training.gradient_clip, runtime
        )
        times = torch.tensor([middle - start, self._now() - middle])
        if not torch.isfinite(measured).all():
            raise RuntimeError("loss or gradient is not finite")
        if runtime.world_size > 1:
            torch.distributed.all_reduce(times, torch.distributed.ReduceOp.MAX)
        return StepTimes(*times.tolist())

    def _now(self) -> float:
        if self._runtime.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()
