"""tools/merge_datasets.py: what is merged equals what is written at once; arithmetic at any size."""

import importlib.util
import json
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from data_reference import DTYPE_CODES, index_bytes, random_documents, write_dataset

from megasbp.data.indexed_dataset import IndexedDataset
from megasbp.data.merge import Index, join_files, join_indexes, merge_datasets, pointers_of, shifted
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
    description = {
        "format": "megasbp indexed dataset 1",
        "dtype": "uint16",
        "documents": 514,
        "tokens": size,
        "files": {
            suffix: {"bytes": (tmp_path / f"merged{suffix}").stat().st_size, "sha256": ""}
            for suffix in (".bin", ".idx")
        },
        "metadata": {},
    }
    (tmp_path / "merged.json").write_text(json.dumps(description))
    merged = IndexedDataset(tmp_path / "merged")
    assert merged.tokens == size > 2**40
    assert merged.document(513)[-3:].tobytes() == b"second"
    assert merged.stream(size // 2 - 3, 3).tobytes()[1:] == b"first"


def test_the_header_counts_more_than_2_to_the_31_documents(tmp_path):
    """Tables of that many entries would be 50 GB; their counts and places are 64-bit integers all the way."""
    documents = 2**31 + 9
    path = tmp_path / "large.idx"
    with open(path, "wb") as file:
        file.write(
            struct.pack("<9sQBQQ", b"MMIDIDX\x00\x00", 1, DTYPE_CODES["uint16"], documents, documents + 1)
        )
        file.truncate(34 + 12 * documents + 8 * (documents + 1))
        file.seek(34 + 12 * documents)
        file.write(struct.pack("<q", 5))

    index = Index.read(path)

    assert (index.sequences, index.bounds) == (documents, documents + 1)
    assert next(index.document_bounds())[:2].tolist() == [5, 0]


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
