"""Slow, plain references of the data room, and small datasets to compare on."""

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from megasbp.data.batch import Batch
from megasbp.data.indexed_dataset import IndexedDataset, IndexedDatasetWriter

BOS, EOS, SEP = 1, 2, 3
METADATA = {"tokenizer": "t" * 64, "bos": BOS, "eos": EOS, "source": {"name": "test"}}
DTYPE_CODES = {
    "uint8": 1,
    "int8": 2,
    "int16": 3,
    "int32": 4,
    "int64": 5,
    "float64": 6,
    "float32": 7,
    "uint16": 8,
}


def write_dataset(
    prefix: Path, documents: Sequence[Sequence[int]], dtype: str = "uint16", **metadata
) -> IndexedDataset:
    """Writes documents as they are and opens them."""
    with IndexedDatasetWriter(prefix, np.dtype(dtype), metadata={**METADATA, **metadata}) as writer:
        for document in documents:
            writer.add_document(np.array(document, dtype=np.int64))
    return IndexedDataset(prefix)


def random_documents(lengths: Sequence[int], seed: int = 0) -> list[list[int]]:
    """Documents `bos ... eos` of these total lengths (0 stays empty, 1 is bos alone), tokens in 10..999."""
    random = np.random.default_rng(seed)
    documents = []
    for length in lengths:
        inside = random.integers(10, 1000, max(0, length - 2)).tolist()
        documents.append([BOS, *inside, EOS][: max(length, 0)] if length != 1 else [BOS])
    return documents


def index_bytes(lengths: Sequence[int], dtype: str) -> bytes:
    """An .idx file of one sequence per document, written field by field."""
    item = np.dtype(dtype).itemsize
    pointers = np.concatenate([[0], np.cumsum(np.array(lengths, dtype=np.int64) * item)])[:-1]
    return b"".join(
        [
            b"MMIDIDX\x00\x00",
            struct.pack("<Q", 1),
            struct.pack("<B", DTYPE_CODES[dtype]),
            struct.pack("<Q", len(lengths)),
            struct.pack("<Q", len(lengths) + 1),
            np.array(lengths, dtype="<i4").tobytes(),
            pointers.astype("<i8").tobytes(),
            np.arange(len(lengths) + 1, dtype="<i8").tobytes(),
        ]
    )


def reference_row(
    segments: Sequence[tuple[Sequence[int], int]], length: int, padding: int
) -> list[list[int]]:
    """Tokens, labels, positions and segments of a row.

    Args:
        segments: tokens of each segment, and how many of its first labels are masked.
    """
    row: list[list[int]] = [[], [], [], []]
    for number, (tokens, masked) in enumerate(segments):
        labels = [*tokens[1:], -100]
        row[0] += tokens
        row[1] += [-100 if place < masked else label for place, label in enumerate(labels)]
        row[2] += range(len(tokens))
        row[3] += [number] * len(tokens)
    missing = length - len(row[0])
    return [values + [fill] * missing for values, fill in zip(row, (padding, -100, 0, -1), strict=True)]


def batch_rows(batch: Batch) -> list[list[list[int]]]:
    """The batch as nested lists, row by row, as `reference_row` gives them."""
    parts = (batch.tokens, batch.labels, batch.positions, batch.segments)
    return [[part[row].tolist() for part in parts] for row in range(len(batch.tokens))]


def same_batch(first: Batch, second: Batch) -> bool:
    return batch_rows(first) == batch_rows(second)
