"""The indexed dataset and its loader beside megatron-core."""

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import megatron
from benchmarks.data_processes import LENGTH, ROWS, lengths, write_ours
from benchmarks.measuring import OURS, Measure, Side, fresh_process, interleave, rate
from megasbp.data.batch import Batch
from megasbp.data.indexed_dataset import IndexedDataset, IndexedDatasetWriter, dataset_files
from megasbp.data.loader import Loader
from megasbp.data.windows import WindowSource

PACKAGES = ("megasbp", "numpy", "torch", "megatron-core")
PEER = "megatron-core"
_BATCH = 64
_VOCABULARY = 50_000
_MEAN_LENGTH = 800


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of this subject."""
    parser.add_argument("--corpus", type=Path, help="prefix of a dataset to draw from (80M random tokens)")
    parser.add_argument("--documents", type=int, default=10_000_000, help="of the large index (%(default)s)")
    parser.add_argument("--samples", type=int, default=4096, help="drawn per repeat (%(default)s)")
    parser.add_argument("--repeats", type=int, default=7, help="of every measure (%(default)s)")


def measure(options: argparse.Namespace, scratch: Path) -> list[Measure]:
    """Every measure of this subject; `scratch` gets about 1 GB for 10M documents."""
    documents, repeats = options.documents, options.repeats
    prefix = options.corpus or _random_corpus(scratch / "corpus")
    measures = [_samples(prefix, options.samples, repeats)]
    measures += _index_writing(scratch, documents, repeats)
    measures.append(_adding(scratch, max(1, documents // 100), repeats))
    write_ours(scratch / "large", documents, 20)
    measures += [_opening(scratch, documents, repeats, warm) for warm in (True, False)]
    return measures


def _random_corpus(prefix: Path) -> Path:
    random = np.random.default_rng(0)
    with IndexedDatasetWriter(
        prefix, np.uint16, metadata={"tokenizer": "none", "bos": 1, "eos": 2}
    ) as writer:
        for block in lengths(100_000, _MEAN_LENGTH):
            tokens = random.integers(10, _VOCABULARY, block.sum())
            ends = np.cumsum(block)
            tokens[ends - 1] = 2
            tokens[ends - block] = 1
            writer.add_documents(tokens, block)
    return prefix


class _OneThread:
    """A source whose batches are filled on the thread that asks."""

    def __init__(self, source: WindowSource) -> None:
        self._source = source
        self.sequence_length = source.sequence_length
        self.samples_per_epoch = source.samples_per_epoch
        self.fingerprint = source.fingerprint

    def batch(self, indices: np.ndarray) -> Batch:
        return self._source.batch(indices, threads=1)


def _samples(prefix: Path, samples: int, repeats: int) -> Measure:
    """Tokens, labels, positions and segment bounds of samples in random order."""
    dataset = IndexedDataset(prefix)
    source = WindowSource(dataset, LENGTH, seed=0, name="benchmark")
    # The peer's index covers one epoch; a small corpus is drawn from again and again, on all sides alike.
    per_epoch = source.samples_per_epoch - 1
    places = np.random.default_rng(0).integers(0, dataset.tokens - LENGTH, samples)
    raw = np.memmap(dataset_files(prefix)[0], dtype=dataset.dtype, mode="r")

    def read(loader: Loader) -> None:
        for _ in loader:
            pass

    def slices() -> None:
        for place in places:
            raw[place : place + LENGTH].astype(np.int64)

    work = samples * LENGTH
    single = _OneThread(source)
    loaders = {
        f"{OURS}, Loader": (
            source,
            2,
            "batches of 64, prefetch=2, as the trainer reads them; 2 threads fill",
        ),
        f"{OURS}, Loader without prefetching": (source, 0, "batches of 64, filled when asked for, 2 threads"),
        f"{OURS}, Loader on one thread": (single, 0, "batches of 64, filled when asked for, 1 thread"),
    }
    runs: dict[str, Callable[[], float]] = {}
    sides: dict[str, Side] = {}
    for name, (samples_of, prefetch, note) in loaders.items():
        loader = Loader(samples_of, range(samples), _BATCH, prefetch=prefetch)
        runs[name] = rate(work, lambda loader=loader: read(loader))
        sides[name] = Side(note=note)
    kinds = {
        f"{PEER}, GPTDataset": (False, "__getitem__ alone, 1 thread: no segment bounds, no batch"),
        f"{PEER}, GPTDataset with resets": (
            True,
            "__getitem__ alone, 1 thread; positions restart, eod is masked",
        ),
    }
    for name, (resets, note) in kinds.items():
        sides[name] = Side(note=note, missing=megatron.missing())
        if not sides[name].missing:
            peer = megatron.gpt_dataset(prefix, LENGTH, resets=resets)
            few = samples if not resets else max(1, samples // 4)
            runs[name] = rate(few * LENGTH, lambda peer=peer, few=few: _read_each(peer, few, per_epoch))
    name = f"{PEER}, GPTDataset in a DataLoader"
    sides[name] = Side(note="batches of 64, 2 worker processes, no resets", missing=megatron.missing())
    if not sides[name].missing:
        runs[name] = rate(work, lambda: _read_loader(prefix, samples, per_epoch))
    sides["numpy"] = Side(note="a slice of the map, widened to int64, nothing else; 1 thread")
    runs["numpy"] = rate(work, slices)
    for name, values in interleave(runs, repeats).items():
        sides[name].values = values
    return Measure(
        f"random samples of {LENGTH} tokens",
        "tokens/s",
        True,
        sides,
        {f"{PEER}, GPTDataset": 8.0},
    )


def _read_each(peer: Any, samples: int, per_epoch: int) -> None:
    for i in range(samples):
        peer[i % per_epoch]


def _read_loader(prefix: Path, samples: int, per_epoch: int) -> None:
    from torch.utils.data import DataLoader

    peer = megatron.gpt_dataset(prefix, LENGTH, resets=False)
    order = [i % per_epoch for i in range(samples)]
    for _ in DataLoader(peer, batch_size=_BATCH, sampler=order, num_workers=2):
        pass


def _index_writing(scratch: Path, documents: int, repeats: int) -> list[Measure]:
    seconds = {
        OURS: Side(note="with fsync, SHA-256 of both files and NAME.json"),
        PEER: Side(note="finalize(): no fsync, no hash", missing=megatron.missing()),
    }
    memory = {OURS: Side(note="whole process"), PEER: Side(note="whole process", missing=megatron.missing())}

    def run(side: str) -> float:
        result = fresh_process("benchmarks.data_processes", "write_index", side, str(scratch), str(documents))
        for path in scratch.glob("ours.*" if side == OURS else "theirs.*"):
            path.unlink()
        memory[side].values.append(result["peak_memory"])
        return result["seconds"]

    runs = {side: (lambda side=side: run(side)) for side in seconds if not seconds[side].missing}
    for side, values in interleave(runs, repeats, warm_up=0).items():
        seconds[side].values = values
    name = f".idx of {documents:,} documents"
    return [
        Measure(f"{name}, writing", "s", False, seconds, {PEER: 10.0}),
        Measure(f"{name}, peak memory", "bytes", False, memory, target_limit=300e6),
    ]


def _adding(scratch: Path, documents: int, repeats: int) -> Measure:
    """Documents of 100 tokens, from the first to the published dataset."""
    import torch

    block = np.full(documents, 100)
    tokens = np.random.default_rng(0).integers(0, _VOCABULARY, block.sum()).astype(np.uint16)
    each = np.split(tokens, len(block))
    tensors = [torch.from_numpy(document) for document in each]

    def ours(*, at_once: bool) -> None:
        with IndexedDatasetWriter(scratch / "added", np.uint16) as writer:
            if at_once:
                writer.add_documents(tokens, block)
            else:
                for document in each:
                    writer.add_document(document)

    def theirs() -> None:
        builder = megatron.builder(scratch / "theirs", np.uint16)
        for tensor in tensors:
            builder.add_document(tensor, [100])
        builder.finalize(f"{scratch / 'theirs'}.idx")

    sides = {
        f"{OURS}, add_documents": Side(note="many at once"),
        f"{OURS}, add_document": Side(note="one by one"),
        PEER: Side(note="add_document, finalize()", missing=megatron.missing()),
    }
    runs = {
        f"{OURS}, add_documents": rate(documents, lambda: ours(at_once=True)),
        f"{OURS}, add_document": rate(documents, lambda: ours(at_once=False)),
        PEER: rate(documents, theirs),
    }
    runs = {name: run for name, run in runs.items() if not sides[name].missing}
    for name, values in interleave(runs, repeats).items():
        sides[name].values = values
    return Measure("dataset of short documents, writing", "documents/s", True, sides)


def _opening(scratch: Path, documents: int, repeats: int, warm: bool) -> Measure:
    sides = {
        OURS: Side(note=f"fresh process after its imports; first batch of {ROWS} x {LENGTH}"),
        PEER: Side(note=f"the same; builds its indexes, {ROWS} samples", missing=megatron.missing()),
    }

    def run(side: str) -> float:
        if not warm:
            for path in dataset_files(scratch / "large"):
                _leave_page_cache(path)
        return fresh_process("benchmarks.data_processes", "open", side, str(scratch), str(documents))[
            "seconds"
        ]

    runs = {side: (lambda side=side: run(side)) for side in sides if not sides[side].missing}
    for side, values in interleave(runs, repeats).items():
        sides[side].values = values
    place = "in the page cache" if warm else "on disk only"
    return Measure(
        f"opening {documents:,} documents {place}, first batch",
        "s",
        False,
        sides,
        target_limit=0.05 if warm else None,
    )


def _leave_page_cache(path: Path) -> None:
    """Drops a file's clean pages; mapped ones would stay, but no process has them mapped."""
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
