"""The loader's batches through NVIDIA DALI: on the GPU before they are asked for, from pinned memory."""

from collections.abc import Generator, Iterator
from typing import Any

import numpy as np
import torch

from megasbp.data.batch import Batch
from megasbp.data.loader import Loader
from megasbp.errors import InputError


class DaliLoader:
    """A `Loader` whose batches NVIDIA DALI copies to the device ahead of their use; same batches, same order.

    Each batch enters the pipeline as one DALI sample of four arrays, so a short or empty last batch passes
    too. On a GPU DALI copies it to pinned memory, and from there on a stream of its own, `depth` batches
    ahead; on the CPU the same pipeline runs without a device. Iterating builds the pipeline anew; an
    exception of the source is raised at its own batch.

    Args:
        loader: with its own prefetching, which fills the batches.
        device: "cpu", or a CUDA device.
        depth: batches that DALI holds ahead, at least 1.

    Raises:
        InputError: DALI is not installed, or depth is below 1.
    """

    def __init__(self, loader: Loader, device: torch.device | str = "cpu", depth: int = 2) -> None:
        if depth < 1:
            raise InputError(f"depth is {depth}, must be at least 1")
        try:
            import nvidia.dali
        except ImportError as error:
            raise InputError(
                f"NVIDIA DALI cannot be imported ({error}); pip install '.[dali]' from a clone, or use "
                "the loader"
            ) from None
        self._dali = nvidia.dali
        self.loader = loader
        self.device = torch.device(device)
        self.depth = depth

    def __len__(self) -> int:
        """Number of batches."""
        return len(self.loader)

    def __iter__(self) -> Generator[Batch, None, None]:
        """The batches; `close()` on what this returns ends an iteration early."""
        batches = iter(self.loader)
        failures: list[Exception] = []
        pipeline = self._pipeline(_arrays(batches, failures))
        on_gpu = self.device.type == "cuda"
        try:
            while True:
                try:
                    stream = torch.cuda.current_stream(self.device) if on_gpu else None
                    outputs = pipeline.run(stream)
                except StopIteration:
                    if failures:
                        raise failures[0] from None
                    return
                yield Batch(*(torch.from_dlpack(output[0]) for output in outputs))
        finally:
            batches.close()

    def _pipeline(self, arrays: Iterator[list[list[np.ndarray]]]) -> Any:
        dali = self._dali
        on_gpu = self.device.type == "cuda"
        device = (self.device.index or 0) if on_gpu else None
        pipeline = dali.Pipeline(
            batch_size=1, num_threads=1, device_id=device, prefetch_queue_depth=self.depth, exec_dynamic=True
        )
        with pipeline:
            nodes = dali.fn.external_source(source=arrays, num_outputs=4, batch=True, dtype=dali.types.INT32)
            pipeline.set_outputs(*(node.gpu() if on_gpu else node for node in nodes))
        return pipeline


def _arrays(batches: Iterator[Batch], failures: list[Exception]) -> Iterator[list[list[np.ndarray]]]:
    """What DALI reads; it reads ahead, so a failure is kept until the batches before it are used."""
    try:
        for batch in batches:
            parts = (batch.tokens, batch.labels, batch.positions, batch.segments)
            yield [[part.numpy()] for part in parts]
    except Exception as error:
        failures.append(error)
