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
from megasbp.pairing.edges import EdgeKind, read_edges

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
        ("a.jsonl", b"{nonsense\n", "links", "cannot be read"),
        ("a.jsonl.gz", gzip.compress(lines(PAIRS), mtime=0)[:-9], "links", "cannot be read"),
        ("a.parquet", b"PAR1", "links", "cannot be read"),
        ("a.jsonl", lines([([1], [2])]), "links", "column source is list.*, must be strings or integers"),
        ("a.jsonl", lines([("1", "2")], ("seed_doc", "target_doc")), "list", "string, must be integers"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(
    tmp_path: Path, name: str, content: bytes, kind: EdgeKind, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        read(write(tmp_path / name, content), kind)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere.jsonl: no such file"):
        read(tmp_path / "nowhere.jsonl")
