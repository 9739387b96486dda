"""Batches in order, prepared ahead."""

import threading
from collections.abc import Generator
from queue import SimpleQueue

import numpy as np

from megasbp.data.batch import Batch
from megasbp.data.sources import SampleSource
from megasbp.errors import InputError


class Loader:
    """One rank's part of each global batch.

    Global batch b is samples [indices.start + b * batch_size, ... + batch_size); rank r of W takes the r-th
    of W equal contiguous slices. The batches are a pure function of the arguments: neither the number of
    ranks nor the depth of prefetching changes a sample. Resuming is another start.

    Iterating starts a thread anew and stops it when the iteration ends, is closed, or fails; an
    exception of the source is raised at its own batch. A last batch may be short; then slices differ by at
    most one row, and a rank's may be empty, so that each rank sees the same number of batches.

    Args:
        source: its `batch` is called from another thread.
        indices: sample indices, of step 1.
        batch_size: rows of the global batch.
        rank, world_size: 0 <= rank < world_size, which divides batch_size.
        prefetch: batches prepared ahead; 0 prepares each when it is asked for, without a thread.

    Raises:
        InputError: an argument outside these bounds.
    """

    def __init__(
        self,
        source: SampleSource,
        indices: range,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        prefetch: int = 2,
    ) -> None:
        if indices.step != 1 or indices.start < 0:
            raise InputError(f"indices are {indices}, must begin at 0 or later and have step 1")
        if not 0 <= rank < world_size:
            raise InputError(f"rank is {rank} of {world_size}, must be in 0..{world_size - 1}")
        if batch_size < 1 or batch_size % world_size:
            raise InputError(
                f"a global batch of {batch_size} rows over {world_size} ranks; make it a multiple"
            )
        if prefetch < 0:
            raise InputError(f"prefetch is {prefetch}, must be at least 0")
        self.source = source
        self.indices = indices
        self.batch_size = batch_size
        self.rank = rank
        self.world_size = world_size
        self.prefetch = prefetch

    def __len__(self) -> int:
        """Number of batches, a short last one included."""
        return (len(self.indices) + self.batch_size - 1) // self.batch_size

    def __iter__(self) -> Generator[Batch, None, None]:
        """The batches; `close()` on what this returns ends an iteration early."""
        if self.prefetch == 0:
            return (self._load(number) for number in range(len(self)))
        return self._iterate_ahead()

    def _load(self, number: int) -> Batch:
        whole = self.indices[number * self.batch_size : (number + 1) * self.batch_size]
        first = len(whole) * self.rank // self.world_size
        last = len(whole) * (self.rank + 1) // self.world_size
        return self.source.batch(np.arange(whole.start + first, whole.start + last, dtype=np.int64))

    def _iterate_ahead(self) -> Generator[Batch, None, None]:
        asked: SimpleQueue[int | None] = SimpleQueue()
        loaded: SimpleQueue[Batch | BaseException] = SimpleQueue()
        stop = threading.Event()

        def work() -> None:
            while (number := asked.get()) is not None and not stop.is_set():
                try:
                    loaded.put(self._load(number))
                except BaseException as error:
                    loaded.put(error)
                    return

        # One is enough: the C++ core fills rows on several threads without the GIL, and a second Python
        # thread only takes their cores. Two plain queues: futures cost twice as much a batch.
        thread = threading.Thread(target=work, name="loader", daemon=True)
        thread.start()
        try:
            for number in range(min(self.prefetch, len(self))):
                asked.put(number)
            for number in range(len(self)):
                if number + self.prefetch < len(self):
                    asked.put(number + self.prefetch)
                yield _taken(loaded)
        finally:
            stop.set()
            asked.put(None)
            thread.join()


def _taken(loaded: SimpleQueue[Batch | BaseException]) -> Batch:
    """The next batch; a function of its own, so that the loader keeps none while its user has it."""
    batch = loaded.get()
    if isinstance(batch, BaseException):
        raise batch
    return batch
