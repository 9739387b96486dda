"""Damaged files: a clear ValueError at opening or at access, and never another document's tokens.

Opening is O(1) and catches what the header, the sizes, the ends of the tables and NAME.json contradict.
Damage in the middle of a table is caught where it is used: an access that succeeds returns what was written.
"""

import json
import struct

import numpy as np
import pytest
from damaged_data import read_documents, read_everything, read_native, read_windows
from data_reference import METADATA, random_documents, write_dataset

from megasbp.data.indexed_dataset import IndexedDataset, IndexedDatasetWriter
from megasbp.errors import InputError

LENGTHS = [5, 0, 2, 17, 0, 3]
COUNT = len(LENGTHS)
HEADER = 34
POINTERS = HEADER + 4 * COUNT
BOUNDS = POINTERS + 8 * COUNT
EXTREMES = [-(2**63), -(2**62), -1, 0, 1, 2**31, 2**32, 2**40, 2**62, 2**63 - 2, 2**63 - 1]


@pytest.fixture
def dataset(tmp_path):
    return write_dataset(tmp_path / "small", random_documents(LENGTHS))


class Damage:
    """Writes changed versions of one file of a dataset."""

    def __init__(self, dataset, suffix):
        self.prefix = dataset.prefix
        self.path = dataset.prefix.with_suffix(suffix)
        self.whole = self.path.read_bytes()

    def replace(self, offset, values):
        content = bytearray(self.whole)
        content[offset : offset + len(values)] = values
        # A new file, not the mapped one: what an open dataset sees must not change under it.
        self.path.unlink()
        self.path.write_bytes(content)
        return bytes(content) != self.whole

    def cut(self, size):
        self.path.unlink()
        self.path.write_bytes(self.whole[:size])


def refused_or_right(found, expected, name):
    """Each access raised with the file's name or gave what was written; returns how many raised."""
    assert len(found) == len(expected)
    for value, right in zip(found, expected, strict=True):
        if isinstance(value, ValueError):
            assert name in str(value)
        else:
            assert value == right
    return sum(isinstance(value, ValueError) for value in found)


@pytest.mark.parametrize("suffix", [".idx", ".bin"])
def test_truncation_at_every_byte_is_refused_at_opening(dataset, suffix):
    damage = Damage(dataset, suffix)
    for size in range(len(damage.whole)):
        damage.cut(size)
        with pytest.raises(InputError, match=rf"small\{suffix}: \d+ bytes"):
            IndexedDataset(dataset.prefix)


def test_every_changed_header_byte_is_refused_at_opening(dataset):
    damage = Damage(dataset, ".idx")
    for offset in range(HEADER):
        for value in {0, 1, 2, 3, 4, 8, 127, 128, 255, damage.whole[offset] ^ 1, damage.whole[offset] ^ 128}:
            if damage.replace(offset, bytes([value])):
                with pytest.raises(InputError, match=r"small\.(idx|bin): "):
                    IndexedDataset(dataset.prefix)


def test_every_other_dtype_code_is_refused_at_opening(dataset):
    damage = Damage(dataset, ".idx")
    for code in set(range(256)) - {8}:
        damage.replace(17, bytes([code]))
        with pytest.raises(InputError, match=r"small\.(idx|bin): "):
            IndexedDataset(dataset.prefix)


@pytest.mark.parametrize("bits", [1, 16, 128, 255])
def test_every_changed_byte_of_the_tables_is_refused_where_it_is_used(dataset, bits):
    documents, windows = read_documents(dataset), read_windows(dataset)
    damage = Damage(dataset, ".idx")
    for offset in range(HEADER, len(damage.whole)):
        damage.replace(offset, bytes([damage.whole[offset] ^ bits]))
        try:
            damaged = IndexedDataset(dataset.prefix)
        except InputError as error:
            assert "small." in str(error)
            continue
        assert refused_or_right(read_documents(damaged), documents, "small.idx") > 0
        refused_or_right(read_windows(damaged), windows, "small.idx")


@pytest.mark.parametrize("value", EXTREMES)
def test_extreme_entries_are_refused_where_they_are_used(dataset, value):
    documents, windows = read_documents(dataset), read_windows(dataset)
    damage = Damage(dataset, ".idx")
    entries = [(POINTERS + 8 * i, "<q") for i in range(COUNT)] + [
        (BOUNDS + 8 * i, "<q") for i in range(COUNT + 1)
    ]
    if -(2**31) <= value < 2**31:
        entries += [(HEADER + 4 * i, "<i") for i in range(COUNT)]
    for offset, kind in entries:
        if not damage.replace(offset, struct.pack(kind, value)):
            continue
        try:
            damaged = IndexedDataset(dataset.prefix)
        except InputError:
            continue
        assert refused_or_right(read_documents(damaged), documents, "small.idx") > 0
        refused_or_right(read_windows(damaged), windows, "small.idx")


def test_overlapping_pointers_are_refused_at_access(dataset):
    # Document 3 is said to begin two tokens early, inside document 2.
    Damage(dataset, ".idx").replace(POINTERS + 8 * 3, struct.pack("<q", 2 * (sum(LENGTHS[:3]) - 2)))
    damaged = IndexedDataset(dataset.prefix)
    for document in (2, 3):
        with pytest.raises(ValueError, match=rf"small\.idx: damaged index, sequence {document} does not end"):
            damaged.document(document)


def test_exchanged_pointers_are_refused_at_access(dataset):
    damage = Damage(dataset, ".idx")
    first, second = (damage.whole[POINTERS + 8 * i : POINTERS + 8 * i + 8] for i in (2, 3))
    damage.replace(POINTERS + 8 * 2, second + first)
    assert all(isinstance(found, ValueError) for found in read_documents(IndexedDataset(dataset.prefix))[1:4])


def test_negative_lengths_are_refused_at_access(dataset):
    Damage(dataset, ".idx").replace(HEADER + 4 * 3, struct.pack("<i", -3))
    with pytest.raises(ValueError, match=r"small\.idx: damaged index, length 3 is -3"):
        IndexedDataset(dataset.prefix).document(3)


@pytest.mark.parametrize(
    ("sequences", "bounds"),
    [
        (2**64 - 1, 2**64 - 1),
        (2**63, 2**63),
        # Chosen so that 34 + 12 * sequences + 8 * bounds is the file's size modulo 2**64.
        (COUNT + 2**62, COUNT + 1),
        (COUNT, COUNT + 1 + 2**61),
        (2 * (2**64 // 3), 7),
        (0, 0),
        (COUNT, 0),
    ],
)
def test_counts_whose_product_overflows_are_refused_at_opening(dataset, sequences, bounds):
    Damage(dataset, ".idx").replace(18, struct.pack("<QQ", sequences, bounds))
    with pytest.raises(InputError, match=r"small\.idx: "):
        IndexedDataset(dataset.prefix)


def test_counts_that_fit_the_file_otherwise_are_refused_at_opening(dataset):
    # 12 bytes a sequence and 8 a bound: two sequences fewer and three bounds more are the same size.
    Damage(dataset, ".idx").replace(18, struct.pack("<QQ", COUNT - 2, COUNT + 1 + 3))
    with pytest.raises(InputError, match=r"small\.idx: "):
        IndexedDataset(dataset.prefix)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "int64", "float32", "float64"])
def test_documents_of_several_sequences_never_leave_the_file(tmp_path, dtype):
    with IndexedDatasetWriter(tmp_path / "parts", dtype, metadata=METADATA) as writer:
        for lengths in ([3, 0, 4], [], [1], [0], [2, 2]):
            writer.add_document(np.arange(sum(lengths)), np.array(lengths, dtype=np.int64))
    dataset = IndexedDataset(tmp_path / "parts")
    stream = dataset.stream(0, dataset.tokens).tolist()
    damage = Damage(dataset, ".idx")
    for offset in range(HEADER, len(damage.whole)):
        for bits in (1, 255):
            damage.replace(offset, bytes([damage.whole[offset] ^ bits]))
            try:
                damaged = IndexedDataset(dataset.prefix)
            except InputError:
                continue
            # A changed bound may move whole sequences from one document to the next; only --verify sees that.
            for found in read_documents(damaged):
                if not isinstance(found, ValueError):
                    places = range(len(stream) - len(found) + 1)
                    assert any(stream[place : place + len(found)] == found for place in places)
            with pytest.raises(InputError, match=r"parts\.idx: SHA-256 differs"):
                damaged.verify()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("files", []),
        ("files", {".bin": 3, ".idx": {}}),
        ("metadata", None),
        ("documents", "six"),
        ("tokens", -1),
        ("dtype", "int16"),
        ("sequences", 7),
    ],
)
def test_a_description_that_does_not_fit_is_refused(dataset, name, value):
    path = dataset.prefix.with_suffix(".json")
    path.write_text(json.dumps({**json.loads(path.read_text()), name: value}))
    with pytest.raises(InputError, match=r"small\."):
        IndexedDataset(dataset.prefix)


def test_reading_everything_of_an_undamaged_dataset_raises_nothing(tmp_path):
    dataset = write_dataset(tmp_path / "x", random_documents([5, 0, 2, 17, 0, 3, 9]))
    read_everything(dataset.prefix, tmp_path / "plan")
    read_everything(dataset.prefix, tmp_path / "plan")
    assert read_native(dataset.prefix, np.random.default_rng(0)) < 11
