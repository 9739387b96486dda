"""tools/merge_datasets.py: what is merged equals what is written at once; arithmetic at any size."""

import importlib.util
import json
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from data_reference import DTYPE_CODES, METADATA, index_bytes, random_documents, write_dataset

from megasbp.data.indexed_dataset import IndexedDataset
from megasbp.data.loader import Loader
from megasbp.data.merge import Index, join_files, join_indexes, merge_datasets, pointers_of, shifted
from megasbp.data.windows import WindowSource
from megasbp.errors import InputError

TOOL = Path(__file__).resolve().parents[2] / "tools" / "merge_datasets.py"
SUFFIXES = (".bin", ".idx", ".json")


@pytest.fixture(scope="module")
def tool():
    specification = importlib.util.spec_from_file_location("merge_datasets", TOOL)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.mark.parametrize("dtype", ("uint16", "int32", "int64"))
def test_merged_equals_written_at_once(tmp_path, dtype):
    parts = [
        random_documents(lengths, seed) for seed, lengths in enumerate(([5, 0, 9], [], [3], [0], [7, 2, 40]))
    ]
    prefixes = [tmp_path / f"part.{number}" for number in range(len(parts))]
    for prefix, documents in zip(prefixes, parts, strict=True):
        write_dataset(prefix, documents, dtype)
    write_dataset(tmp_path / "once", [document for part in parts for document in part], dtype)

    merge_datasets(prefixes, tmp_path / "merged")

    for suffix in SUFFIXES:
        assert (tmp_path / f"merged{suffix}").read_bytes() == (tmp_path / f"once{suffix}").read_bytes()
    IndexedDataset(tmp_path / "merged").verify()


@pytest.mark.parametrize(
    ("dtype", "metadata", "message"),
    (
        ("int32", {}, "tokens of int32, those of .*a are uint16"),
        ("uint16", {"tokenizer": "u" * 64}, "tokenizer uuu"),
        ("uint16", {"eos": 9}, "eos 9, that of .*a is 2"),
    ),
)
def test_datasets_that_do_not_fit_are_refused(tmp_path, dtype, metadata, message):
    write_dataset(tmp_path / "a", [[1, 2]])
    write_dataset(tmp_path / "b", [[1, 2]], dtype, **metadata)

    with pytest.raises(InputError, match=message):
        merge_datasets([tmp_path / "a", tmp_path / "b"], tmp_path / "merged")
    assert not list(tmp_path.glob("merged*"))


def test_nothing_and_oneself_are_refused(tmp_path):
    write_dataset(tmp_path / "a", [[1, 2]])
    with pytest.raises(InputError, match="no dataset"):
        merge_datasets([], tmp_path / "merged")
    with pytest.raises(InputError, match="is one of the datasets"):
        merge_datasets([tmp_path / "a"], tmp_path / "a")


def test_a_damaged_index_is_found(tmp_path):
    write_dataset(tmp_path / "a", [[1, 2], [3, 4, 5], [6]])
    data = bytearray((tmp_path / "a.idx").read_bytes())
    struct.pack_into("<q", data, 34 + 12 + 8, 2)
    (tmp_path / "a.idx").write_bytes(data)

    with pytest.raises(InputError, match=r"a\.idx: damaged index"):
        merge_datasets([tmp_path / "a"], tmp_path / "merged")


def test_different_sources_are_all_kept(tmp_path):
    for name in ("one", "two", "one again"):
        write_dataset(tmp_path / name, [[1, 2]], source={"name": name[:3]})

    merge_datasets([tmp_path / name for name in ("one", "two", "one again")], tmp_path / "merged")

    assert IndexedDataset(tmp_path / "merged").metadata["source"] == [{"name": "one"}, {"name": "two"}]


def test_pointers_and_bounds_beyond_32_bits():
    lengths = np.array([2**31 - 1, 2**31 - 1, 1], np.int32)
    start = 2**42

    pointers, end = pointers_of(lengths, 8, start)

    assert pointers.tolist() == [start, start + 8 * (2**31 - 1), start + 16 * (2**31 - 1)]
    assert end == start + 8 * (2**32 - 1)
    assert pointers_of(np.array([], np.int32), 2, start)[1] == start
    # Document bounds count sequences: more than 2**31 of them, merged with as many.
    assert shifted(np.array([0, 2**31, 2**32 + 5]), 2**33 + 7).tolist() == [
        2**33 + 7,
        2**33 + 2**31 + 7,
        2**33 + 2**32 + 12,
    ]


def test_more_than_2_to_the_40_tokens_in_sparse_files(tmp_path):
    """Two datasets of 2**39 + 2**31 tokens each: 256 + 1 sequences as long as the format allows, times "
    "two."""
    lengths = [2**31 - 1] * 257
    size = 2 * sum(lengths)
    for name, mark in (("a", b"first"), ("b", b"second")):
        (tmp_path / f"{name}.idx").write_bytes(index_bytes(lengths, "uint16"))
        with open(tmp_path / f"{name}.bin", "wb") as file:
            file.truncate(size)
            file.seek(size - len(mark))
            file.write(mark)
    indexes = [Index.read(tmp_path / f"{name}.idx") for name in "ab"]

    join_indexes(indexes, 2, tmp_path / "merged.idx")
    join_files([tmp_path / "a.bin", tmp_path / "b.bin"], tmp_path / "merged.bin")

    assert (tmp_path / "merged.idx").read_bytes() == index_bytes(lengths * 2, "uint16")
    assert (tmp_path / "merged.bin").stat().st_size == 2 * size
    assert (tmp_path / "merged.bin").stat().st_blocks * 512 < 1 << 20, "the holes were filled"
    with open(tmp_path / "merged.bin", "rb") as file:
        assert os.pread(file.fileno(), 5, size - 5) == b"first"
        assert os.pread(file.fileno(), 6, 2 * size - 6) == b"second"
    # The reader opens it, finds its way in it, and counts beyond 2**40.
    describe(tmp_path / "merged", 514, size, "uint16")
    merged = IndexedDataset(tmp_path / "merged")
    assert merged.tokens == size > 2**40
    assert merged.document(513)[-3:].tobytes() == b"second"
    assert merged.stream(size // 2 - 3, 3).tobytes()[1:] == b"first"


def describe(prefix: Path, documents: int, tokens: int, dtype: str, **more: int) -> None:
    """The .json of a dataset made field by field; its hashes, which opening does not read, are left out."""
    files = {
        suffix: {"bytes": prefix.with_suffix(suffix).stat().st_size, "sha256": ""}
        for suffix in (".bin", ".idx")
    }
    description = {
        "format": "megasbp indexed dataset 1",
        "dtype": dtype,
        "documents": documents,
        "tokens": tokens,
        **more,
        "files": files,
        "metadata": METADATA,
    }
    prefix.with_suffix(".json").write_text(json.dumps(description))


def header(dtype: str, sequences: int, documents: int) -> bytes:
    return struct.pack("<9sQBQQ", b"MMIDIDX\x00\x00", 1, DTYPE_CODES[dtype], sequences, documents + 1)


@pytest.mark.slow
def test_more_than_2_to_the_31_documents_are_merged_in_sparse_files(tmp_path, monkeypatch):
    """Empty documents, then 600 of the longest sequence the format allows: more than 2**40 tokens too.

    A table of 17 GB and tokens of 1.3 TB, nearly all holes, and so is the result. Its hashes, which would
    take most of the time, are left out.
    """
    empty, full, longest = 2**31 + 9, 600, 2**31 - 1
    documents, tokens = empty + full, full * longest
    with open(tmp_path / "a.idx", "wb") as file:
        file.write(header("uint8", full, documents))
        file.write(np.full(full, longest, "<i4").tobytes())
        file.write((np.arange(full, dtype=np.int64) * longest).astype("<i8").tobytes())
        file.seek(8 * empty, os.SEEK_CUR)
        file.write(np.arange(full + 1, dtype="<i8").tobytes())
    with open(tmp_path / "a.bin", "wb") as file:
        file.truncate(tokens)
        file.seek(tokens - 3)
        file.write(bytes([7, 8, 9]))
    describe(tmp_path / "a", documents, tokens, "uint8", sequences=full)
    write_dataset(tmp_path / "b", [[1, 5, 2], [], [1, 7, 8, 2]], "uint8")
    # Twenty bytes a document are asked for, which holes do not take.
    monkeypatch.setattr("megasbp.data.merge.require_free_space", lambda folder, needed: None)
    monkeypatch.setattr("megasbp.data.merge.hash_file", lambda path: "")

    merge_datasets([tmp_path / "a", tmp_path / "b"], tmp_path / "merged")

    assert (tmp_path / "merged.idx").stat().st_size == 34 + 12 * (full + 3) + 8 * (documents + 4)
    for suffix in (".idx", ".bin"):
        assert (tmp_path / f"merged{suffix}").stat().st_blocks * 512 < 32 << 20, "the holes were filled"
    merged = IndexedDataset(tmp_path / "merged")
    assert len(merged) == documents + 3 and merged.tokens == tokens + 7
    assert [merged.document(documents + place).tolist() for place in range(3)] == [
        [1, 5, 2],
        [],
        [1, 7, 8, 2],
    ]
    assert merged.document(documents - 1)[-3:].tolist() == [7, 8, 9]
    assert [merged.document(place).size for place in (0, 2**31, empty - 1, empty)] == [0, 0, 0, longest]
    with pytest.raises(IndexError):
        merged.document(documents + 3)


def test_reading_beyond_2_to_the_31_documents_and_2_to_the_40_tokens(tmp_path):
    """Sparse files of 43 GB and 1.3 TB: empty documents, then 600 as long as the format allows.

    In the index only what is looked at is written: the entries of the 600.
    """
    empty, full, longest = 2**31 + 9, 600, 2**31 - 1
    documents, tokens = empty + full, full * longest
    with open(tmp_path / "large.idx", "wb") as file:
        file.write(header("uint8", documents, documents))
        file.seek(4 * empty, os.SEEK_CUR)
        file.write(np.full(full, longest, "<i4").tobytes())
        file.seek(8 * empty, os.SEEK_CUR)
        file.write((np.arange(full, dtype=np.int64) * longest).astype("<i8").tobytes())
        file.seek(8 * empty, os.SEEK_CUR)
        file.write(np.arange(empty, documents + 1, dtype="<i8").tobytes())
    with open(tmp_path / "large.bin", "wb") as file:
        file.truncate(tokens)
    describe(tmp_path / "large", documents, tokens, "uint8")
    dataset = IndexedDataset(tmp_path / "large")
    source = WindowSource(dataset, 64, seed=0, name="large")
    # Of sixteen windows spread over 1.3e12 tokens two or three lie beyond 2**40.
    starts = source.starts(np.arange(16))
    expected = np.random.default_rng(0).integers(10, 250, (16, 64), dtype=np.uint8)
    with open(tmp_path / "large.bin", "r+b") as file:
        for start, window in zip(starts.tolist(), expected, strict=True):
            file.seek(start)
            file.write(window.tobytes())

    (batch,) = Loader(source, range(16), 16)

    assert starts.max() > 2**40
    assert np.array_equal(batch.tokens.numpy(), expected)
    assert [document.size for document in map(dataset.document, (documents - 1, empty))] == [longest] * 2
    assert dataset.document(documents - 1)[-1] == 0
    number, place = divmod(int(starts.max()), longest)
    assert dataset.document(empty + number)[place : place + 64].tolist() == expected[starts.argmax()].tolist()
    assert len(dataset) == documents > 2**31 and dataset.tokens == tokens > 2**40


def test_files_are_joined_without_the_kernels_help(tmp_path, monkeypatch):
    def refuses(*_):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "copy_file_range", refuses)
    for name, data in (("a", b"abc" * 1000), ("b", b""), ("c", b"xyz")):
        (tmp_path / name).write_bytes(data)

    join_files([tmp_path / name for name in "abc"], tmp_path / "out")

    assert (tmp_path / "out").read_bytes() == b"abc" * 1000 + b"xyz"


def test_the_tool_takes_prefixes_and_files(tool, tmp_path, capsys):
    for name in "ab":
        write_dataset(tmp_path / name, [[1, 5, 2]])

    assert (
        tool.main([str(tmp_path / "merged"), *(str(tmp_path / f"{name}.json") for name in "ab"), "--verify"])
        == 0
    )
    assert "2 datasets, 2 documents, 6 tokens of uint16" in capsys.readouterr().out
    assert tool.main([str(tmp_path / "merged"), str(tmp_path / "missing")]) == 2
    assert "missing.json: no such file" in capsys.readouterr().err


def test_help_explains_the_result(tool, capsys):
    with pytest.raises(SystemExit):
        tool.main(["--help"])
    assert "byte for byte" in capsys.readouterr().out
