"""Files exchanged with megatron-core, both ways: every dtype code, empty documents, several sequences."""

import itertools

import numpy as np
import pytest
import torch
from data_reference import DTYPE_CODES, METADATA, batch_rows, write_dataset

from megasbp.data.indexed_dataset import IndexedDataset, IndexedDatasetWriter, describe_dataset
from megasbp.data.windows import WindowSource

megatron = pytest.importorskip(
    "megatron.core.datasets.indexed_dataset",
    reason="needs megatron-core: pip install --no-deps megatron-core",
)
pytestmark = pytest.mark.slow

# Documents as their sequences: one, none, empty ones, several, at the start, in the middle and at the end.
DOCUMENTS = [
    [[1, 7, 2]],
    [],
    [[]],
    [[1, 5], [6], [], [9, 9, 2]],
    [[], [4]],
    [[1, 100, 101, 102, 103, 104, 2]],
    [[3, 3], []],
    [[]],
    [],
]
SINGLE = [[[1, 7, 2]], [[]], [[1, 5, 6, 2]], [[]], [[8]], [[]]]
CASES = {"one sequence each": SINGLE, "several sequences": DOCUMENTS, "no documents": []}
every_case = pytest.mark.parametrize("documents", CASES.values(), ids=CASES.keys())
every_dtype = pytest.mark.parametrize("dtype", DTYPE_CODES)


def joined(document):
    return [token for sequence in document for token in sequence]


def write_ours(prefix, documents, dtype):
    with IndexedDatasetWriter(prefix, dtype, metadata=METADATA) as writer:
        for document in documents:
            tokens = np.array(joined(document), dtype=np.int64)
            writer.add_document(tokens, np.array([len(part) for part in document], dtype=np.int64))
    return IndexedDataset(prefix)


def write_theirs(prefix, documents, dtype, *, by_item=False):
    builder = megatron.IndexedDatasetBuilder(f"{prefix}.bin", dtype=getattr(np, dtype))
    for document in documents:
        if by_item:
            for part in document:
                builder.add_item(torch.tensor(part, dtype=torch.int64))
            builder.end_document()
        else:
            tokens = torch.tensor(joined(document), dtype=torch.int64)
            builder.add_document(tokens, [len(part) for part in document])
    builder.finalize(f"{prefix}.idx")


def read_theirs(prefix, **options):
    """Documents as their sequences, and the type, read by megatron-core."""
    dataset = megatron.IndexedDataset(str(prefix), **options)
    bounds = dataset.document_indices.tolist()
    documents = [
        [dataset[sequence].tolist() for sequence in range(first, last)]
        for first, last in itertools.pairwise(bounds)
    ]
    return documents, np.dtype(dataset.index.dtype)


@every_dtype
@every_case
def test_both_write_the_same_bytes(tmp_path, documents, dtype):
    write_ours(tmp_path / "ours", documents, dtype)
    for by_item in (False, True):
        write_theirs(tmp_path / "theirs", documents, dtype, by_item=by_item)
        for suffix in (".bin", ".idx"):
            ours, theirs = ((tmp_path / f"{name}{suffix}").read_bytes() for name in ("ours", "theirs"))
            assert ours == theirs


@every_dtype
@every_case
def test_ours_reads_theirs(tmp_path, documents, dtype):
    write_theirs(tmp_path / "x", documents, dtype)
    describe_dataset(tmp_path / "x", METADATA)
    dataset = IndexedDataset(tmp_path / "x")
    dataset.verify(vocabulary_size=105)
    assert dataset.dtype == np.dtype(dtype)
    assert [dataset.document(i).tolist() for i in range(len(dataset))] == [joined(d) for d in documents]
    assert dataset.lengths.tolist() == [len(joined(document)) for document in documents]
    assert dataset.stream(0, dataset.tokens).tolist() == joined([joined(d) for d in documents])


@every_dtype
@pytest.mark.parametrize("documents", [SINGLE, DOCUMENTS], ids=["one sequence each", "several sequences"])
@pytest.mark.parametrize("mmap", [True, False])
def test_theirs_reads_ours(tmp_path, documents, dtype, mmap):
    write_ours(tmp_path / "x", documents, dtype)
    assert read_theirs(tmp_path / "x", mmap=mmap) == (documents, np.dtype(dtype))


@every_dtype
def test_windows_of_their_files_are_those_of_ours(tmp_path, dtype):
    write_theirs(tmp_path / "theirs", DOCUMENTS, dtype)
    describe_dataset(tmp_path / "theirs", METADATA)
    ours = write_dataset(tmp_path / "ours", [joined(document) for document in DOCUMENTS], "int32")
    samples = np.arange(12)
    assert batch_rows(
        WindowSource(IndexedDataset(tmp_path / "theirs"), 7, 0, "x").batch(samples)
    ) == batch_rows(WindowSource(ours, 7, 0, "x").batch(samples))


@every_case
def test_ours_reads_what_they_merged_from_ours(tmp_path, documents):
    write_ours(tmp_path / "part", documents, "uint16")
    builder = megatron.IndexedDatasetBuilder(f"{tmp_path / 'whole'}.bin", dtype=np.uint16)
    for _ in range(3):
        builder.add_index(str(tmp_path / "part"))
    builder.finalize(f"{tmp_path / 'whole'}.idx")
    describe_dataset(tmp_path / "whole", METADATA)
    dataset = IndexedDataset(tmp_path / "whole")
    expected = 3 * [joined(document) for document in documents]
    assert [dataset.document(i).tolist() for i in range(len(dataset))] == expected


def test_their_gpt_dataset_draws_from_our_files(tmp_path):
    from benchmarks.megatron import gpt_dataset

    random = np.random.default_rng(0)
    documents = [[random.integers(10, 900, 300).tolist()] for _ in range(40)]
    ours = write_ours(tmp_path / "x", documents, "uint16")
    stored = {tuple(document[0][:8]): document[0] for document in documents}
    for sample in (gpt_dataset(tmp_path / "x", 600, resets=False)[i]["tokens"].tolist() for i in range(15)):
        # A sample of 600 tokens holds at least one whole document of 300 from its start on.
        starts = [place for place in range(301) if tuple(sample[place : place + 8]) in stored]
        assert any(sample[at : at + 300] == stored[tuple(sample[at : at + 8])] for at in starts)
    assert ours.tokens == 40 * 300
