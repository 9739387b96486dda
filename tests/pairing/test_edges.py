"""Files of pairs: every kind gives the same pairs, and what is wrong is named."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from megasbp.errors import InputError
from megasbp.pairing import edges
from megasbp.pairing.edges import NUMBERS, EdgeKind, read_edges

PAIRS = [("a", "b"), ("c d", "é"), ("7", "a")]


def read(path: Path, kind: EdgeKind = "links") -> list[tuple]:
    return [row for batch in read_edges(path, kind) for row in zip(*batch.to_pydict().values(), strict=True)]


def lines(pairs: list[tuple], names: tuple[str, str] = ("source", "target")) -> bytes:
    return "".join(json.dumps(dict(zip(names, pair, strict=True))) + "\n" for pair in pairs).encode()


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_every_kind_of_file_gives_the_same_pairs(tmp_path: Path) -> None:
    table = "".join(f"{source}\t{target}\n" for source, target in PAIRS).encode()
    pq.write_table(
        pa.table({"weight": [1, 2, 3], "target": [t for _, t in PAIRS], "source": [s for s, _ in PAIRS]}),
        tmp_path / "a.parquet",
    )
    files = [
        tmp_path / "a.parquet",
        write(tmp_path / "a.jsonl", lines(PAIRS)),
        write(tmp_path / "a.ndjson.zst", zstandard.compress(lines(PAIRS))),
        write(tmp_path / "a.tsv", table),
        write(tmp_path / "a.tsv.gz", gzip.compress(table)),
    ]
    for file in files:
        assert read(file) == PAIRS


def test_a_file_is_read_a_piece_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edges, "_BYTES_AT_ONCE", 20)
    monkeypatch.setattr(edges, "_ROWS_AT_ONCE", 2)
    path = write(tmp_path / "a.jsonl", lines(PAIRS) + b"\n" * 50 + lines(PAIRS))
    assert read(path) == PAIRS * 2
    assert len(list(read_edges(path, "links"))) > 2


def test_integers_are_ids_by_their_digits_and_empty_cells_stay(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", lines([(5, None), (12, None)], ("seed", "target")))
    assert read(path, "list") == [("5", None), ("12", None)]


def test_columns_that_nobody_reads_may_hold_anything(tmp_path: Path) -> None:
    rows = [{"source": "a", "target": "b", "meta": meta} for meta in (1, "x", [{}], None)]
    path = write(tmp_path / "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())
    assert read(path) == [("a", "b")] * 4


def test_ids_that_look_like_times_or_numbers_stay_as_they_are(tmp_path: Path) -> None:
    for pairs in ([("2020-01-01", "2020-01-01T10:00:00Z")], [("007", "1.50"), ("1e3", "null")]):
        assert read(write(tmp_path / "a.jsonl", lines(pairs))) == pairs


def test_integer_ids_may_be_of_any_size(tmp_path: Path) -> None:
    assert read(write(tmp_path / "a.jsonl", lines([(-7, 2**63 - 1)]))) == [("-7", str(2**63 - 1))]
    assert read(write(tmp_path / "a.jsonl", lines([(1, 10**30)]))) == [("1", str(10**30))]


@pytest.mark.parametrize("bytes_at_once", [1, 1 << 25])
def test_a_column_may_mix_strings_integers_and_empty_cells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bytes_at_once: int
) -> None:
    monkeypatch.setattr(edges, "_BYTES_AT_ONCE", bytes_at_once)
    mixed = [("a", 7), (12, "é"), (None, "b"), ("c", None)]
    path = write(tmp_path / "a.jsonl", b"\n" + lines(mixed).replace(b"\n", b"\r\n\n"))
    assert read(path) == [("a", "7"), ("12", "é"), (None, "b"), ("c", None)]


def test_a_cell_that_is_left_out_is_empty(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", b'{"source": "a"}\n{"target": "b"}\n{"source": "c", "target": 4}\n')
    assert read(path) == [("a", None), (None, "b"), ("c", "4")]


def test_numbers_of_a_pair_table_stay_numbers(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"seed_doc": pa.array([3, None], pa.int32()), "target_doc": [0, 1]}), tmp_path / "a.parquet"
    )
    assert read(tmp_path / "a.parquet", "list") == [(3, 0), (-1, 1)]


@pytest.mark.parametrize(
    ("name", "content", "kind", "message"),
    [
        ("a.jsonl", lines(PAIRS), "list", "needs columns seed and target or seed_doc .*, has source, target"),
        ("a.tsv", b"a\tb\n", "list", "unknown kind of file; pairing.path may be .parquet, .jsonl, .ndjson$"),
        ("a.csv", b"a,b\n", "links", "unknown kind of file"),
        ("a.tsv", b"a\tb\nc\n", "links", r"a\.tsv: cannot be read"),
        ("a.jsonl", b"{nonsense\n", "links", r"a\.jsonl: line 1 cannot be read \(no JSON from character 2"),
        ("a.jsonl", b"\n" + lines(PAIRS) + b"[1]\n", "links", r"line 5 cannot be read \(no object\)"),
        ("a.jsonl", lines(PAIRS) + b"\xff\n", "links", r"line 4 cannot be read \('utf-8' codec"),
        ("a.jsonl.gz", gzip.compress(lines(PAIRS), mtime=0)[:-9], "links", "cannot be read"),
        ("a.parquet", b"PAR1", "links", "cannot be read"),
        ("a.jsonl", lines([([1], 2)]), "links", r"\[1\] in column source is list, must be str"),
        ("a.jsonl", lines([("a", 1), ("b", 1.5)]), "links", "line 2: 1.5 in column target is fraction"),
        ("a.jsonl", lines([("a", True)]), "links", "line 1: true in column target is boolean, must be"),
        ("a.jsonl", lines([("a", "\ud800")]), "links", "line 1: .*ud800.* is half of a UTF-16 pair, must be"),
        ("a.jsonl", lines([("1", "2")], NUMBERS), "list", '"1" in column seed_doc is string, must be int'),
        ("a.jsonl", lines([(1, 2.5)], NUMBERS), "list", "line 1: 2.5 in column target_doc is fraction"),
        ("a.jsonl", lines([(1, 2**63)], NUMBERS), "list", "target_doc is integer beyond 64 bits, must be"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(
    tmp_path: Path, name: str, content: bytes, kind: EdgeKind, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        read(write(tmp_path / name, content), kind)


@pytest.mark.parametrize("cell", [7, "b"])
def test_a_fault_in_a_later_piece_is_named_by_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cell: int | str
) -> None:
    monkeypatch.setattr(edges, "_BYTES_AT_ONCE", 20)
    good = lines([("a", cell)]) * 9 + b"\n" * 50
    with pytest.raises(InputError, match=r"a\.jsonl: line 60: 0\.5 in column target is fraction"):
        read(write(tmp_path / "a.jsonl", good + lines([("a", 0.5)])))
    with pytest.raises(InputError, match=r"a\.jsonl: line 60 cannot be read \(no JSON from character 17 on"):
        read(write(tmp_path / "a.jsonl", good + b'{"source": "a", "targ'))


def test_a_column_that_some_lines_do_not_have_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edges, "_BYTES_AT_ONCE", 20)
    path = write(tmp_path / "a.jsonl", lines(PAIRS) + lines([(1, None)]))
    assert read(path)[-1] == ("1", None)
    with pytest.raises(InputError, match="no target in some of its lines; complete them"):
        read(write(path, lines(PAIRS) + b'{"source": "a", "targets": "b"}\n'))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere.jsonl: no such file"):
        read(tmp_path / "nowhere.jsonl")
