"""The dataset's files: Megatron's bytes, checked opening, refused damage."""

import json
import struct

import numpy as np
import pytest
from data_reference import (
    BOS,
    DTYPE_CODES,
    EOS,
    METADATA,
    batch_rows,
    index_bytes,
    random_documents,
    write_dataset,
)

from megasbp.data.indexed_dataset import (
    IndexedDataset,
    IndexedDatasetWriter,
    dataset_files,
    describe_dataset,
)
from megasbp.data.windows import WindowSource
from megasbp.errors import InputError

LENGTHS = [5, 0, 2, 17, 0, 3]


@pytest.fixture
def dataset(tmp_path):
    return write_dataset(tmp_path / "small", random_documents(LENGTHS))


@pytest.mark.parametrize(("dtype", "code"), DTYPE_CODES.items())
def test_documents_come_back_as_written(tmp_path, dtype, code):
    largest = {"float32": 2**24, "float64": 2**53}.get(dtype) or np.iinfo(dtype).max
    documents = [[0, 1, largest], [], [largest], [7]]
    dataset = write_dataset(tmp_path / "x", documents, dtype)
    assert [dataset.document(i).tolist() for i in range(len(dataset))] == documents
    assert dataset.dtype == np.dtype(dtype)
    assert (tmp_path / "x.idx").read_bytes()[17] == code


@pytest.mark.parametrize("dtype", ["uint16", "int32"])
def test_files_are_megatrons_bytes(tmp_path, dtype):
    documents = random_documents(LENGTHS)
    write_dataset(tmp_path / "x", documents, dtype)
    assert (tmp_path / "x.idx").read_bytes() == index_bytes(LENGTHS, dtype)
    assert (tmp_path / "x.bin").read_bytes() == np.concatenate(documents).astype(dtype).tobytes()


def test_counts_and_lengths(dataset):
    assert (len(dataset), dataset.tokens) == (len(LENGTHS), sum(LENGTHS))
    assert dataset.lengths.dtype == np.int32
    assert dataset.lengths.tolist() == LENGTHS


def test_stream_is_the_documents_one_after_another(dataset):
    whole = np.concatenate([dataset.document(i) for i in range(len(dataset))])
    assert np.array_equal(dataset.stream(3, 10), whole[3:13])


def test_dataset_without_documents_opens(tmp_path):
    dataset = write_dataset(tmp_path / "empty", [])
    dataset.verify()
    assert (len(dataset), dataset.tokens, dataset.lengths.tolist()) == (0, 0, [])


def test_views_cannot_be_written(dataset):
    for view in (dataset.document(0), dataset.lengths, dataset.stream(0, 4)):
        with pytest.raises(ValueError, match="read-only"):
            view[0] = 9


def test_view_outlives_its_dataset(tmp_path):
    documents = random_documents([4000])
    view = write_dataset(tmp_path / "x", documents).document(0)
    assert view.tolist() == documents[0]


@pytest.mark.parametrize("document", [-1, len(LENGTHS), 2**40])
def test_document_outside_is_an_index_error(dataset, document):
    with pytest.raises(IndexError, match=str(document)):
        dataset.document(document)


@pytest.mark.parametrize(
    ("start", "count"), [(-1, 2), (0, sum(LENGTHS) + 1), (sum(LENGTHS) + 1, 0), (0, -1), (1, 2**62)]
)
def test_stream_outside_is_an_index_error(dataset, start, count):
    with pytest.raises(IndexError):
        dataset.stream(start, count)


def test_metadata_come_back_and_are_a_copy(dataset):
    dataset.metadata["bos"] = 77
    assert dataset.metadata == METADATA


def test_special_tokens_come_from_the_metadata(dataset):
    assert (dataset.special_token("bos"), dataset.special_token("eos")) == (BOS, EOS)


def test_missing_special_token_is_named(tmp_path):
    dataset = write_dataset(tmp_path / "x", [[1]], eos=None)
    with pytest.raises(InputError, match=r"x\.json.*'eos'"):
        dataset.special_token("eos")


def test_fingerprint_follows_content_and_metadata_and_not_place(tmp_path):
    documents = random_documents(LENGTHS)
    here = write_dataset(tmp_path / "a", documents).fingerprint
    assert write_dataset(tmp_path / "elsewhere" / "b", documents).fingerprint == here
    assert write_dataset(tmp_path / "c", [*documents, [5]]).fingerprint != here
    assert write_dataset(tmp_path / "d", documents, tokenizer="u" * 64).fingerprint != here


def test_prefix_may_hold_dots(tmp_path):
    write_dataset(tmp_path / "wiki.v1", [[4, 5]])
    assert IndexedDataset(tmp_path / "wiki.v1").document(0).tolist() == [4, 5]


def test_file_of_a_dataset_instead_of_its_prefix_is_told(dataset):
    with pytest.raises(InputError, match=r"give the prefix .*small$"):
        IndexedDataset(dataset_files(dataset.prefix)[0])


@pytest.mark.parametrize("suffix", [".bin", ".idx", ".json"])
def test_missing_file_is_named(dataset, suffix):
    path = dataset.prefix.with_suffix(suffix)
    path.unlink()
    with pytest.raises(InputError, match=rf"small\{suffix}: no such file"):
        IndexedDataset(dataset.prefix)


def test_every_truncated_index_is_refused(dataset):
    path = dataset.prefix.with_suffix(".idx")
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(InputError, match=r"small\.idx: \d+ bytes, truncated.*write the dataset again"):
            IndexedDataset(dataset.prefix)


def test_index_with_bytes_behind_its_end_is_refused(dataset):
    path = dataset.prefix.with_suffix(".idx")
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(InputError, match=r"small\.idx: .* bytes where its header announces"):
        IndexedDataset(dataset.prefix)


@pytest.mark.parametrize(("change", "word"), [(-1, "shorter"), (1, "longer")])
def test_bin_of_another_size_than_its_index_says_is_refused(dataset, change, word):
    path = dataset.prefix.with_suffix(".bin")
    whole = path.read_bytes()
    path.write_bytes(whole[:change] if change < 0 else whole + b"\0")
    with pytest.raises(InputError, match=rf"small\.bin: \d+ bytes, {word} than the {len(whole)} bytes"):
        IndexedDataset(dataset.prefix)


@pytest.mark.parametrize(
    ("offset", "value", "message"),
    [
        (0, b"GGUF", "byte 0: no MMIDIDX magic"),
        (9, struct.pack("<Q", 2), "byte 9: MMIDIDX version 2"),
        (17, b"\x09", "byte 17: dtype code 9, must be in 1..8"),
        (18, struct.pack("<Q", 2**63), "162 bytes, truncated: its header announces 9223372036854775808"),
    ],
)
def test_damaged_header_names_place(dataset, offset, value, message):
    path = dataset.prefix.with_suffix(".idx")
    content = bytearray(path.read_bytes())
    content[offset : offset + len(value)] = value
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"small\.idx: {message}"):
        IndexedDataset(dataset.prefix)


@pytest.mark.parametrize("length", [-1, sum(LENGTHS) + 1])
def test_opening_reads_only_the_ends_and_a_bad_length_is_caught_at_its_access(dataset, length):
    path = dataset.prefix.with_suffix(".idx")
    content = bytearray(path.read_bytes())
    content[34:38] = struct.pack("<i", length)
    path.write_bytes(content)
    damaged = IndexedDataset(dataset.prefix)
    with pytest.raises(ValueError, match=f"length 0 is {length}"):
        damaged.document(0)


def test_a_document_is_its_sequences_joined(tmp_path):
    parts = [[[5, 6], [], [7]], [], [[8]], [[], [9, 10]], [[]]]
    with IndexedDatasetWriter(tmp_path / "x", np.uint16, metadata=METADATA) as writer:
        for document in parts:
            writer.add_document(np.concatenate([[], *document]).astype(np.int64), list(map(len, document)))
    dataset = IndexedDataset(tmp_path / "x")
    dataset.verify()
    assert [dataset.document(i).tolist() for i in range(len(dataset))] == [[5, 6, 7], [], [8], [9, 10], []]
    assert dataset.lengths.tolist() == [3, 0, 1, 2, 0]
    assert dataset.lengths.dtype == np.int32


def test_sequences_make_no_difference_to_what_is_trained_on(tmp_path):
    random = np.random.default_rng(0)
    documents = random_documents(random.integers(0, 40, 60).tolist())
    joined = WindowSource(write_dataset(tmp_path / "joined", documents), 16, 0, "x")
    with IndexedDatasetWriter(tmp_path / "parts", np.uint16, metadata=METADATA) as writer:
        for document in documents:
            cuts = np.sort(random.integers(0, len(document) + 1, random.integers(0, 5)))
            parts = np.diff([0, *cuts, len(document)])
            writer.add_document(document, parts[:0] if not document and len(parts) > 3 else parts)
    parts = WindowSource(IndexedDataset(tmp_path / "parts"), 16, 0, "x")
    samples = np.arange(3 * joined.samples_per_epoch)
    assert batch_rows(parts.batch(samples)) == batch_rows(joined.batch(samples))


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0, 0.5, 2.0**25, 1e300])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_floating_point_values_that_are_no_tokens_are_named(tmp_path, dtype, value):
    if value == 2.0**25 and dtype == "float64":
        value = 2.0**54
    dataset = write_dataset(tmp_path / "x", [[4, 5], [6]], dtype)
    path = dataset.prefix.with_suffix(".bin")
    with np.errstate(over="ignore"):
        path.write_bytes(np.array([4, value, 6], dtype=dtype).tobytes())
    damaged = IndexedDataset(dataset.prefix)
    assert damaged.document(1).tolist() == [6]
    with pytest.raises(ValueError, match=r"x\.bin: token 1 is not an integer in 0\.\."):
        damaged.document(0)


@pytest.mark.parametrize("pointer", [-2, 1, 2**40])
def test_pointer_outside_the_file_is_caught_at_its_access(dataset, pointer):
    path = dataset.prefix.with_suffix(".idx")
    content = bytearray(path.read_bytes())
    entry = 34 + 4 * len(LENGTHS) + 8 * 2
    content[entry : entry + 8] = struct.pack("<q", pointer)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"pointer 2 is {pointer}"):
        IndexedDataset(dataset.prefix).document(2)


def test_offsets_beyond_four_gigabytes(tmp_path):
    lengths = [2**30, 2**30, 2**30, 2]
    prefix = tmp_path / "large"
    bin_path, idx_path, json_path = dataset_files(prefix)
    idx_path.write_bytes(index_bytes(lengths, "uint16"))
    with open(bin_path, "wb") as file:
        file.seek(2 * sum(lengths) - 4)  # A sparse file: six gigabytes of holes cost nothing.
        file.write(np.array([11, 12], dtype=np.uint16).tobytes())
    files = {path.suffix: {"bytes": path.stat().st_size, "sha256": ""} for path in (bin_path, idx_path)}
    description = {"format": "megasbp indexed dataset 1", "dtype": "uint16", "documents": 4}
    json_path.write_text(
        json.dumps({**description, "tokens": sum(lengths), "files": files, "metadata": METADATA})
    )
    assert IndexedDataset(prefix).document(3).tolist() == [11, 12]
    assert IndexedDataset(prefix).stream(sum(lengths) - 3, 3).tolist() == [0, 11, 12]


def test_verify_accepts_what_was_written(dataset):
    dataset.verify(vocabulary_size=1000)


@pytest.mark.parametrize("suffix", [".bin", ".idx"])
def test_verify_finds_one_changed_byte(dataset, suffix):
    path = dataset.prefix.with_suffix(suffix)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"small\{suffix}: SHA-256 differs"):
        IndexedDataset(dataset.prefix).verify()


def test_verify_finds_a_token_outside_the_vocabulary(tmp_path):
    dataset = write_dataset(tmp_path / "x", [[1, 2], [3, 900]])
    with pytest.raises(InputError, match=r"x\.bin: token 3 is 900, the vocabulary has 900"):
        dataset.verify(vocabulary_size=900)


@pytest.mark.parametrize(
    ("entry", "value", "message"),
    [
        (34 + 4 * 6 + 8 * 3, 0, "sequence 2 does not end where the next one begins"),
        (34 + 12 * 6 + 8 * 4, 2, "document bound 4 is below the one before it"),
        (34 + 12 * 6 + 8 * 6, 5, "document bounds go from 0 to 5, its sequences from 0 to 6"),
    ],
)
def test_gaps_and_bounds_of_foreign_files_are_checked_before_they_are_described(
    tmp_path, entry, value, message
):
    content = bytearray(index_bytes(LENGTHS, "uint16"))
    content[entry : entry + 8] = struct.pack("<q", value)
    (tmp_path / "x.idx").write_bytes(content)
    (tmp_path / "x.bin").write_bytes(b"\0" * (2 * sum(LENGTHS)))
    with pytest.raises(InputError, match=message):
        describe_dataset(tmp_path / "x", {})
    assert not (tmp_path / "x.json").exists()


def test_described_foreign_files_open_like_our_own(tmp_path):
    documents = random_documents(LENGTHS)
    ours = write_dataset(tmp_path / "ours", documents)
    (tmp_path / "x.idx").write_bytes(index_bytes(LENGTHS, "uint16"))
    (tmp_path / "x.bin").write_bytes(np.concatenate(documents).astype("<u2").tobytes())
    describe_dataset(tmp_path / "x", METADATA)
    IndexedDataset(tmp_path / "x").verify()
    assert IndexedDataset(tmp_path / "x").fingerprint == ours.fingerprint


@pytest.mark.parametrize(
    "content", ["[]", '{"format": "another"}', '{"format": "megasbp indexed dataset 1"}']
)
def test_description_of_another_format_is_refused(dataset, content):
    dataset.prefix.with_suffix(".json").write_text(content)
    with pytest.raises(InputError, match=r"small\.json: not a description"):
        IndexedDataset(dataset.prefix)
