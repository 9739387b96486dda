"""Reads a dataset in every way there is; for tests that damage its files."""

from pathlib import Path

import numpy as np
from data_reference import batch_rows

import megasbp._C as core
from megasbp.data.documents import PackedDocuments
from megasbp.data.indexed_dataset import IndexedDataset, dataset_files
from megasbp.data.loader import Loader
from megasbp.data.pairs import PairSource
from megasbp.data.windows import WindowSource

LENGTH = 8
SEP = 3


def read_documents(dataset: IndexedDataset) -> list[list[int] | ValueError]:
    """Each document's tokens, or what was raised at its access."""
    found: list[list[int] | ValueError] = []
    for document in range(len(dataset)):
        try:
            found.append(dataset.document(document).tolist())
        except ValueError as error:
            found.append(error)
    return found


def read_windows(dataset: IndexedDataset) -> list[list[list[int]] | ValueError]:
    """Two epochs of windows one by one, as rows or what was raised."""
    source = WindowSource(dataset, LENGTH, 0, "x")
    found: list[list[list[int]] | ValueError] = []
    for sample in range(2 * source.samples_per_epoch):
        try:
            found += batch_rows(source.batch(np.array([sample])))
        except ValueError as error:
            found.append(error)
    return found


def read_everything(prefix: Path, plan: Path | None = None) -> None:
    """Opens and reads through the public interfaces; raises what they raise first."""
    dataset = IndexedDataset(prefix)
    for document in range(len(dataset)):
        int(np.asarray(dataset.document(document)).sum())
    int(dataset.stream(0, dataset.tokens).sum())
    int(dataset.lengths.sum())
    for _ in Loader(WindowSource(dataset, LENGTH, 0, "x"), range(20), 4, prefetch=0):
        pass
    packed = PackedDocuments(dataset, LENGTH)
    packed.batch(np.arange(packed.samples_per_epoch))
    documents = np.flatnonzero(dataset.lengths >= 2)
    pairs = PairSource(dataset, dataset, documents, documents[::-1], 12, SEP, seed=0, plan_folder=plan)
    pairs.batch(np.arange(pairs.samples_per_epoch))
    dataset.verify(1000)


def read_native(prefix: Path, random: np.random.Generator) -> int:
    """Reads through the C++ core alone, by random arrays too; returns how often it refused."""
    bin_path, idx_path, _ = dataset_files(prefix)
    dataset = core.IndexedDataset(str(bin_path), str(idx_path), bool(random.integers(2)))
    whole = max(dataset.tokens, 1)

    def numbers(count: int, high: int) -> np.ndarray:
        """Mostly valid, sometimes anything."""
        values = random.integers(0, max(1, high), count)
        wild = random.random(count) < 0.05
        return np.where(wild, random.integers(-(2**63), 2**63 - 1, count), values).astype(np.int64)

    def bounds(rows: int, items: int) -> np.ndarray:
        values = np.sort(random.integers(0, items + 1, rows + 1))
        return numbers(rows + 1, items + 1) if random.random() < 0.2 else values.astype(np.int64)

    documents = len(dataset)
    calls = [
        lambda: [dataset.document(i).sum() for i in range(min(documents, 50))],
        lambda: dataset.document(int(numbers(1, documents)[0])),
        lambda: dataset.stream(*map(int, numbers(2, whole))).sum(),
        lambda: dataset.stream(0, dataset.tokens).sum(),
        dataset.lengths.sum,
        dataset.document_lengths,
        dataset.verify,
        lambda: core.window_batch(dataset, numbers(6, whole), LENGTH, 2),
        lambda: core.window_batch(dataset, numbers(2, whole), 3 * whole, 1),
        lambda: core.piece_batch(
            dataset, bounds(4, 8), numbers(8, documents), numbers(8, 3), numbers(4, 4), 40, 2, 2
        ),
        lambda: core.pair_batch(
            dataset,
            dataset,
            bounds(4, 6),
            numbers(6, 5),
            numbers(5, documents),
            numbers(5, documents),
            numbers(4, 4),
            int(random.integers(1, 60)),
            1,
            SEP,
            2,
            2,
        ),
    ]
    refused = 0
    for call in calls:
        try:
            call()
        except (ValueError, IndexError):
            refused += 1
    return refused
