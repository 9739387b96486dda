"""Windows over the circular stream, against a reference that walks token by token."""

import numpy as np
import pytest
import torch
from data_reference import batch_rows, random_documents, reference_row, same_batch, write_dataset

from megasbp.data.indexed_dataset import IndexedDataset
from megasbp.data.windows import WindowSource
from megasbp.errors import InputError

LENGTHS = [7, 0, 1, 30, 0, 0, 2, 3, 90, 5, 0]


@pytest.fixture
def documents():
    return random_documents(LENGTHS)


@pytest.fixture
def dataset(tmp_path, documents):
    return write_dataset(tmp_path / "x", documents)


def reference_window(documents, start, length):
    """A segment for each run of tokens of one document; the stream's end is the end of one."""
    stream = [(token, number) for number, document in enumerate(documents) for token in document]
    segments = []
    for step in range(length):
        place = (start + step) % len(stream)
        token, number = stream[place]
        if step == 0 or place == 0 or number != stream[place - 1][1]:
            segments.append([])
        segments[-1].append(token)
    return reference_row([(tokens, 0) for tokens in segments], length, padding=0)


@pytest.mark.parametrize("length", [2, 3, 16, 64, sum(LENGTHS)])
def test_rows_equal_the_reference(dataset, documents, length):
    source = WindowSource(dataset, length, seed=3, name="real")
    indices = np.arange(3 * source.samples_per_epoch)
    expected = [reference_window(documents, start, length) for start in source.starts(indices).tolist()]
    assert batch_rows(source.batch(indices)) == expected


def test_every_start_gives_the_reference(tmp_path, documents):
    # A window as long as the stream is one sample an epoch at a uniform phase: epochs visit every start.
    dataset = write_dataset(tmp_path / "x", documents)
    source = WindowSource(dataset, dataset.tokens, seed=3, name="real")
    indices = np.arange(2000)
    starts = source.starts(indices)
    assert len(np.unique(starts)) == dataset.tokens
    first = np.unique(starts, return_index=True)[1]
    expected = [reference_window(documents, start, dataset.tokens) for start in starts[first].tolist()]
    assert batch_rows(source.batch(indices[first])) == expected


@pytest.mark.parametrize("dtype", ["int16", "int32", "int64"])
def test_token_type_does_not_change_the_samples(tmp_path, documents, dtype):
    samples = np.arange(12)
    narrow = WindowSource(write_dataset(tmp_path / "a", documents), 16, 1, "x").batch(samples)
    wide = WindowSource(write_dataset(tmp_path / "b", documents, dtype), 16, 1, "x").batch(samples)
    assert same_batch(narrow, wide)


def test_batches_are_int32_and_refuse_a_token_that_it_does_not_hold(tmp_path):
    batch = WindowSource(write_dataset(tmp_path / "a", [[5, 2**31 - 1]], "int64"), 2, 0, "x").batch(
        np.arange(1)
    )
    assert batch.tokens.max() == 2**31 - 1
    assert {values.dtype for values in vars(batch).values()} == {torch.int32}
    with pytest.raises(InputError, match="is not an integer in 0..2147483647"):
        WindowSource(write_dataset(tmp_path / "b", [[5, 2**31]], "int64"), 2, 0, "x").batch(np.arange(1))


def test_one_document_wraps_into_two_segments(tmp_path):
    dataset = write_dataset(tmp_path / "x", [list(range(1, 12))])
    source = WindowSource(dataset, 11, seed=0, name="x")
    start = int(source.starts(np.array([0]))[0])
    segments = source.batch(np.array([0])).segments[0].tolist()
    assert start > 0
    assert segments == [0] * (11 - start) + [1] * start


def test_epochs_read_each_token_at_most_once(dataset):
    source = WindowSource(dataset, 16, seed=3, name="real")
    read = np.sort(source.starts(np.arange(source.samples_per_epoch)))
    assert source.samples_per_epoch == sum(LENGTHS) // 16
    gaps = np.diff(np.append(read, read[0] + dataset.tokens))
    assert gaps.min() == 16


@pytest.mark.parametrize("change", [{"seed": 4}, {"name": "other"}])
def test_seed_and_name_change_order_and_fingerprint(dataset, change):
    arguments = {"seed": 3, "name": "real"}
    one = WindowSource(dataset, 4, **arguments)
    other = WindowSource(dataset, 4, **{**arguments, **change})
    indices = np.arange(one.samples_per_epoch)
    assert one.fingerprint != other.fingerprint
    assert not np.array_equal(one.starts(indices), other.starts(indices))


def test_equal_arguments_give_equal_samples_and_fingerprints(dataset):
    one, other = (WindowSource(dataset, 8, seed=2**64 - 1, name="x") for _ in range(2))
    assert one.fingerprint == other.fingerprint
    assert same_batch(one.batch(np.arange(40)), other.batch(np.arange(40)))


@pytest.mark.parametrize("threads", [1, 2, 3, 7, 64])
def test_number_of_threads_does_not_change_the_batch(dataset, threads):
    source = WindowSource(dataset, 32, seed=3, name="real")
    indices = np.array([5, 0, 0, 10**12, 3, 77, 41])
    assert same_batch(source.batch(indices, threads=threads), source.batch(indices, threads=1))


def test_empty_batch_has_no_rows(dataset):
    assert tuple(WindowSource(dataset, 32, 3, "x").batch(np.array([], dtype=np.int64)).tokens.shape) == (
        0,
        32,
    )


@pytest.mark.parametrize("indices", [[-1], [0.5], [[1]]])
def test_indices_that_are_no_samples_are_refused(dataset, indices):
    with pytest.raises(InputError, match="sample ind"):
        WindowSource(dataset, 16, 3, "x").batch(np.array(indices))


@pytest.mark.parametrize(
    ("length", "message"), [(1, "at least 2"), (sum(LENGTHS) + 1, "fewer than one window")]
)
def test_impossible_lengths_are_refused(dataset, length, message):
    with pytest.raises(InputError, match=message):
        WindowSource(dataset, length, 3, "x")


@pytest.mark.parametrize("threads", [1, 2])
def test_damaged_pointer_is_an_error_that_names_the_index(dataset, threads):
    path = dataset.prefix.with_suffix(".idx")
    content = bytearray(path.read_bytes())
    entry = 34 + 4 * len(LENGTHS) + 8 * 7
    content[entry : entry + 8] = (2 * 39).to_bytes(8, "little")  # One token early.
    path.write_bytes(content)
    source = WindowSource(IndexedDataset(dataset.prefix), dataset.tokens, 3, "x")
    with pytest.raises(InputError, match=r"x\.idx: damaged index"):
        source.batch(np.arange(4), threads=threads)
