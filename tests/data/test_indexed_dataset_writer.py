"""The writer: what it refuses, and that a failure leaves an earlier dataset as it was."""

import errno
import resource
from contextlib import contextmanager

import numpy as np
import pytest
from data_reference import write_dataset

import megasbp._C as core
from megasbp.data import indexed_dataset
from megasbp.data.indexed_dataset import IndexedDataset, IndexedDatasetWriter
from megasbp.errors import InputError


@contextmanager
def file_size_limit(size):
    """Lets no file of this process grow beyond `size` bytes; a longer write fails with EFBIG."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def folder_bytes(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("dtype", "tokens", "message"),
    [
        ("uint16", [5, 65536], "document 1, token 1: 65536 is not in 0..65535"),
        ("uint8", [256], "256 is not in 0..255"),
        ("int32", [-1], "-1 is not in"),
        ("int64", np.array([2**63], dtype=np.uint64), "is not in 0"),
        ("uint16", [0.5], "are float64 of shape"),
        ("uint16", [[1, 2]], r"of shape \[1, 2\]"),
    ],
)
def test_tokens_that_do_not_fit_are_refused(tmp_path, dtype, tokens, message):
    with pytest.raises(InputError, match=message), IndexedDatasetWriter(tmp_path / "x", dtype) as writer:
        writer.add_document(np.array([1, 2]))
        writer.add_document(np.array(tokens))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dtype", ["float16", "uint32", "uint64"])
def test_dtypes_without_a_megatron_code_are_refused(tmp_path, dtype):
    with (
        pytest.raises(InputError, match=f"dtype {dtype} is not one of"),
        IndexedDatasetWriter(tmp_path / "x", dtype),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_nothing_appears_before_the_clean_exit(tmp_path):
    with IndexedDatasetWriter(tmp_path / "x", np.uint16) as writer:
        writer.add_document(np.arange(5))
        assert not [path for path in tmp_path.iterdir() if ".partial-" not in path.name]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.bin", "x.idx", "x.json"]


def test_an_exception_inside_leaves_an_earlier_dataset(tmp_path):
    write_dataset(tmp_path / "x", [[1, 2, 3]])
    before = folder_bytes(tmp_path)
    with pytest.raises(KeyError), IndexedDatasetWriter(tmp_path / "x", np.uint16) as writer:
        writer.add_document(np.arange(9))
        raise KeyError
    assert folder_bytes(tmp_path) == before


def test_rewriting_replaces_the_dataset(tmp_path):
    write_dataset(tmp_path / "x", [[1, 2, 3]])
    write_dataset(tmp_path / "x", [[4], [5, 6]], "int32")
    dataset = IndexedDataset(tmp_path / "x")
    dataset.verify()
    assert [dataset.document(i).tolist() for i in range(2)] == [[4], [5, 6]]


@pytest.mark.parametrize(
    ("documents", "tokens", "failing"),
    # One long document fails in .bin while it is added; many short ones in .idx (20 bytes each) at the end.
    [(1, 2**22, "x.bin"), (70_000, 1, "x.idx")],
)
def test_file_size_limit_is_an_os_error_with_name_and_leaves_an_earlier_dataset(
    tmp_path, documents, tokens, failing
):
    write_dataset(tmp_path / "x", [[1, 2, 3]])
    before = folder_bytes(tmp_path)
    with (
        file_size_limit(1 << 20),
        pytest.raises(OSError, match="File too large") as raised,
        IndexedDatasetWriter(tmp_path / "x", np.uint16) as writer,
    ):
        for _ in range(documents):
            writer.add_document(np.ones(tokens, dtype=np.int64))
    assert raised.value.errno == errno.EFBIG
    assert failing in raised.value.filename
    assert folder_bytes(tmp_path) == before


def test_failure_in_the_description_leaves_an_earlier_dataset(tmp_path):
    write_dataset(tmp_path / "x", [[1, 2, 3]])
    before = folder_bytes(tmp_path)
    with (
        pytest.raises(OSError, match="File too large") as raised,
        file_size_limit(1 << 12),
        IndexedDatasetWriter(tmp_path / "x", np.uint16, metadata={"note": "n" * 5000}) as writer,
    ):
        writer.add_document(np.arange(5))
    assert raised.value.errno == errno.EFBIG
    assert raised.value.filename.endswith("x.json")
    assert folder_bytes(tmp_path) == before


def test_full_device_is_an_os_error_with_name(tmp_path):
    writer = core.IndexedDatasetWriter("/dev/full", str(tmp_path / "x.idx"), np.dtype(np.uint16))
    with pytest.raises(OSError, match="No space left") as raised:
        writer.add_documents(np.zeros(2**20, dtype=np.int64), np.array([2**20]))
    assert (raised.value.errno, raised.value.filename) == (errno.ENOSPC, "/dev/full")


def test_a_kill_between_the_renames_leaves_no_dataset_that_opens(tmp_path, monkeypatch):
    write_dataset(tmp_path / "x", [[1, 2, 3]])

    def killed(path):
        # The first sync of the folder follows the removal of the old description.
        if path.is_dir():
            raise SystemExit

    monkeypatch.setattr(indexed_dataset, "sync_file", killed)
    with pytest.raises(SystemExit), IndexedDatasetWriter(tmp_path / "x", np.uint16) as writer:
        writer.add_document(np.arange(5))
    with pytest.raises(InputError, match="no finished dataset"):
        IndexedDataset(tmp_path / "x")


def test_documents_added_at_once_are_the_files_of_those_added_one_by_one(tmp_path):
    random = np.random.default_rng(0)
    lengths = random.integers(0, 9, 1000)
    tokens = random.integers(0, 60_000, lengths.sum())
    with IndexedDatasetWriter(tmp_path / "one", np.uint16) as writer:
        for document in np.split(tokens, np.cumsum(lengths)[:-1]):
            writer.add_document(document)
    with IndexedDatasetWriter(tmp_path / "many", np.uint16) as writer:
        writer.add_documents(tokens[:0], lengths[:0])
        writer.add_documents(tokens, lengths)
    for suffix in (".bin", ".idx"):
        assert (tmp_path / f"one{suffix}").read_bytes() == (tmp_path / f"many{suffix}").read_bytes()


@pytest.mark.parametrize(
    ("tokens", "lengths", "message"),
    [
        ([1, 2, 3], [2, 2], "document 1 and on: lengths add up to 4, there are 3 tokens"),
        ([1, 2, 3], [4, -1], "document 2: -1 tokens"),
        ([1, 2, 70_000], [1, 0, 2], "document 3, token 1: 70000 is not in"),
        ([1], [2**62, 2**62], "document 1: 4611686018427387904 tokens, must be in 0..2147483647"),
    ],
)
def test_lengths_that_do_not_fit_are_refused_and_nothing_is_appended(tmp_path, tokens, lengths, message):
    with IndexedDatasetWriter(tmp_path / "x", np.uint16) as writer:
        writer.add_documents(np.array([7]), np.array([1]))
        with pytest.raises(InputError, match=message):
            writer.add_documents(np.array(tokens), np.array(lengths))
    assert IndexedDataset(tmp_path / "x").lengths.tolist() == [1]


def test_many_documents_cross_every_buffer(tmp_path):
    lengths = np.random.default_rng(0).integers(0, 40, 200_000)
    with IndexedDatasetWriter(tmp_path / "x", np.uint16) as writer:
        for number, length in enumerate(lengths.tolist()):
            writer.add_document(np.full(length, number % 65536))
    dataset = IndexedDataset(tmp_path / "x")
    dataset.verify()
    assert np.array_equal(dataset.lengths, lengths)
    assert np.array_equal(
        dataset.stream(0, dataset.tokens), np.repeat(np.arange(len(lengths)) % 65536, lengths)
    )


def test_copied_documents_are_those_added_one_by_one(tmp_path):
    documents = [[5, 6], [], [65535], list(range(600_000)), [7]]
    tokens = [np.array(document) % 65536 for document in documents]
    with IndexedDatasetWriter(tmp_path / "source", np.uint16) as writer:
        for document in tokens[:-1]:
            writer.add_document(document)
        # A document of several sequences becomes one.
        writer.add_document(np.array([7, 8, 9]), np.array([1, 2]))
    source = IndexedDataset(tmp_path / "source")

    with IndexedDatasetWriter(tmp_path / "copied", np.uint16) as writer:
        writer.copy_documents(source, np.array([3, 0, 1]))
        writer.add_document(np.array([1]))
        writer.copy_documents(source, np.array([], np.int64))
        writer.copy_documents(source, np.array([4, 2, 4]))
    with IndexedDatasetWriter(tmp_path / "one_by_one", np.uint16) as writer:
        for document in (tokens[3], tokens[0], tokens[1], [1], [7, 8, 9], tokens[2], [7, 8, 9]):
            writer.add_document(np.array(document, np.int64))

    for suffix in (".bin", ".idx", ".json"):
        assert (tmp_path / f"copied{suffix}").read_bytes() == (tmp_path / f"one_by_one{suffix}").read_bytes()


@pytest.mark.parametrize(
    ("dtype", "documents", "message"),
    (
        ("uint16", [0, 2], "document 2"),
        ("uint16", [-1], "document -1"),
        ("int32", [0], "of another dtype"),
        ("uint16", [0.5], "numbers are float64"),
    ),
)
def test_documents_that_cannot_be_copied_are_named(tmp_path, dtype, documents, message):
    source = write_dataset(tmp_path / "source", [[1], [2]])

    with pytest.raises(InputError, match=message), IndexedDatasetWriter(tmp_path / "x", dtype) as writer:
        writer.copy_documents(source, np.array(documents))
    assert not list(tmp_path.glob("x*"))
