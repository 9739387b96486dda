"""A source that ends a run at a step, by an exception or by a signal."""

import os
import sys
from dataclasses import replace

import numpy as np
from training_world import RaggedSource

from megasbp.data.batch import Batch
from megasbp.parallel.runtime import Runtime
from megasbp.training.job import TrainingJob
from megasbp.training.trainer import train


class BreakingSource(RaggedSource):
    """Fails when a step beyond `step` is read, or sends this process a signal."""

    def __init__(self, seed: int, step: int, rows: int, signal_number: int | None = None) -> None:
        super().__init__(seed)
        self.first, self.signal_number = step * rows, signal_number

    def batch(self, indices: np.ndarray) -> Batch:
        if indices[0] >= self.first:
            if self.signal_number is None:
                raise InterruptedError
            os.kill(os.getpid(), self.signal_number)
            self.first = sys.maxsize
        return super().batch(indices)


def train_up_to(step: int, job: TrainingJob, runtime: Runtime) -> list[int]:
    """Trains until the source fails behind a step; the checkpoints up to there stay.

    Returns:
        The samples that this rank has read.
    """
    broken = BreakingSource(1, step, job.training.global_batch)
    try:
        train(replace(job, source=broken), runtime)
    except InterruptedError:
        return broken.read
    raise AssertionError("the run was not interrupted")
