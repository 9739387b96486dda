"""Jobs of the data benchmark that need a process of their own: for its peak memory, or for its start.

    python -m benchmarks.data_processes JOB megasbp|megatron-core FOLDER DOCUMENTS

prints one JSON object. Imports are done before the clock starts.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from benchmarks.measuring import OURS, peak_memory

LENGTH = 4096
ROWS = 8
# Documents whose lengths are drawn at once, so that making the input costs no memory.
_BLOCK = 1 << 16


def lengths(documents: int, mean: int) -> Iterator[np.ndarray]:
    """Lengths of documents, at least 2, in blocks; the same on every side."""
    random = np.random.default_rng(0)
    for first in range(0, documents, _BLOCK):
        yield 1 + random.geometric(1 / (mean - 1), min(_BLOCK, documents - first))


def write_ours(prefix: Path, documents: int, mean: int) -> float:
    """Writes documents of zeros. Returns the seconds from the last one to the published dataset."""
    from megasbp.data.indexed_dataset import IndexedDatasetWriter

    with IndexedDatasetWriter(
        prefix, np.uint16, metadata={"tokenizer": "none", "bos": 1, "eos": 2}
    ) as writer:
        for block in lengths(documents, mean):
            writer.add_documents(np.zeros(block.sum(), dtype=np.int64), block)
        start = time.perf_counter()
    return time.perf_counter() - start


def write_index_ours(folder: Path, documents: int) -> float:
    return write_ours(folder / "ours", documents, 3)


def write_index_theirs(folder: Path, documents: int) -> float:
    """The same documents; their lengths are put where add_document puts them. Seconds of finalize()."""
    from benchmarks import megatron

    prefix = folder / "theirs"
    builder = megatron.builder(prefix, np.uint16)
    for block in lengths(documents, 3):
        builder.data_file.write(np.zeros(block.sum(), dtype=np.uint16).tobytes())
        first = len(builder.sequence_lengths)
        builder.sequence_lengths.extend(block.tolist())
        builder.document_indices.extend(range(first + 1, first + 1 + len(block)))
    start = time.perf_counter()
    builder.finalize(f"{prefix}.idx")
    return time.perf_counter() - start


def open_ours(folder: Path, documents: int) -> float:
    """Seconds from a path to the first batch, as the trainer gets it."""
    from megasbp.data.indexed_dataset import IndexedDataset
    from megasbp.data.loader import Loader
    from megasbp.data.windows import WindowSource

    start = time.perf_counter()
    dataset = IndexedDataset(folder / "large")
    source = WindowSource(dataset, LENGTH, seed=0, name="benchmark")
    batch = next(iter(Loader(source, range(source.samples_per_epoch), ROWS)))
    seconds = time.perf_counter() - start
    assert len(dataset) == documents and batch.tokens.shape == (ROWS, LENGTH)
    return seconds


def open_theirs(folder: Path, documents: int) -> float:
    """Seconds from a path to the first samples, its document, sample and shuffle indexes built on the way."""
    from benchmarks import megatron

    megatron.builder(folder / "unused", np.uint16)  # imports what is needed
    start = time.perf_counter()
    dataset = megatron.gpt_dataset(folder / "large", LENGTH, resets=False)
    samples = [dataset[i] for i in range(ROWS)]
    seconds = time.perf_counter() - start
    assert len(dataset.dataset) == documents and len(samples) == ROWS
    return seconds


JOBS: dict[tuple[str, str], Callable[[Path, int], float]] = {
    ("write_index", OURS): write_index_ours,
    ("write_index", "megatron-core"): write_index_theirs,
    ("open", OURS): open_ours,
    ("open", "megatron-core"): open_theirs,
}

if __name__ == "__main__":
    job, side, folder, documents = sys.argv[1:]
    seconds = JOBS[job, side](Path(folder), int(documents))
    print(json.dumps({"seconds": seconds, "peak_memory": peak_memory()}))
