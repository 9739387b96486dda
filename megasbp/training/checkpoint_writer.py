"""Checkpoints written behind the training, which waits for the copy of the tensors only."""

import sys
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch

from megasbp.parallel.runtime import Runtime
from megasbp.parallel.shards import local_tensor
from megasbp.training.checkpoint import save_checkpoint


class CheckpointWriter:
    """Writes one checkpoint at a time, in a thread of its own; a context manager, left when all is written.

    All ranks call its methods at the same steps. Memory: one copy of this rank's parts of the tensors, on the
    host: 12 bytes a parameter (weight and two moments), divided by the ranks that shard it. The first `save`
    makes it, the others fill it anew; it is pinned where the tensors are on a GPU.

    Args:
        tensors: live ones, as `checkpoint_tensors` gives them.
    """

    def __init__(self, tensors: Mapping[str, torch.Tensor], runtime: Runtime) -> None:
        self._tensors, self._runtime = tensors, runtime.in_background()
        self._copies: dict[str, torch.Tensor] = {}
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._flight: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.wait()
        except Exception as failure:
            if error is None:
                raise
            # What ends the run already is the error to be raised.
            print(f"megasbp: a checkpoint could not be written: {failure}", file=sys.stderr, flush=True)
        finally:
            self._executor.shutdown()

    def save(self, folder: Path, state: Mapping[str, Any], published: Callable[[], None]) -> None:
        """Waits for the write before it, copies the tensors, and begins to write the copy.

        Args:
            folder, state, published: as of `save_checkpoint`; the last is called in the thread.

        Raises:
            OSError: as `wait`.
        """
        self.wait()
        self._copy()
        self._flight = self._executor.submit(
            save_checkpoint, folder, self._tensors, state, self._runtime, self._copies, published
        )

    @property
    def failed(self) -> bool:
        """Whether the write in flight has ended with an error, which `wait` raises; does not wait."""
        return self._flight is not None and self._flight.done() and self._flight.exception() is not None

    def wait(self) -> None:
        """Returns when the write in flight, if any, is published.

        Raises:
            OSError: it failed, on this or another rank; what was there before is unchanged.
        """
        flight, self._flight = self._flight, None
        if flight is not None:
            flight.result()

    def _copy(self) -> None:
        for name, tensor in self._tensors.items():
            part = local_tensor(tensor)
            if name not in self._copies:
                self._copies[name] = torch.empty(part.shape, dtype=part.dtype, pin_memory=part.is_cuda)
            self._copies[name].copy_(part, non_blocking=True)
        if self._runtime.device.type == "cuda":
            torch.cuda.current_stream(self._runtime.device).synchronize()
