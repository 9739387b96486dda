import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from megasbp.corpus.quarantine import Quarantine
from megasbp.corpus.readers import read_documents
from megasbp.errors import InputError

LINES = b'{"id": "a", "text": "one"}\n{"id": "b", "text": "two"}\n{"id": "c", "text": "three"}\n'


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def read_all(paths: list[Path], folder: Path, **settings):
    """Documents and the quarantined records, whatever their share."""
    quarantine = Quarantine(folder / "quarantine", maximum_share=1.0)
    documents = list(read_documents(paths, quarantine=quarantine, **settings))
    return documents, [json.loads(line) for line in quarantine.path.read_text().splitlines()]


def texts(documents) -> list[str]:
    return [document.text for document in documents]


@pytest.mark.parametrize(
    ("name", "data"),
    (
        ("a.jsonl", LINES),
        ("a.json.gz", gzip.compress(LINES)),
        ("a.JSONL.GZ", gzip.compress(LINES[:30]) + gzip.compress(LINES[30:])),
        ("a.jsonl.zst", zstandard.compress(LINES)),
        ("a.ndjson.zst", zstandard.compress(LINES[:30]) + zstandard.compress(LINES[30:])),
        ("a.jsonl", LINES.rstrip(b"\n")),
        ("a.jsonl", b"\xef\xbb\xbf" + LINES.replace(b"\n", b"\r\n\r\n")),
    ),
    ids=("plain", "gzip", "gzip members", "zstd", "zstd frames", "no last line end", "mark and blank lines"),
)
def test_json_lines_are_read_in_every_packing(tmp_path, name, data):
    documents, bad = read_all([write(tmp_path / name, data)], tmp_path)

    assert [(document.id, document.text) for document in documents] == [
        ("a", "one"),
        ("b", "two"),
        ("c", "three"),
    ]
    assert bad == []


@pytest.mark.parametrize(
    ("line", "reason"),
    (
        (b'{"text": "cut', "invalid_json"),
        (b'{"text": "x\xff"}', "invalid_utf8"),
        (b'["text"]', "not_an_object"),
        (b"{}", "not_an_object"),
        (b"[" * 100_000, "invalid_json"),
        (b'{"n": ' + b"9" * 5000 + b"}", "invalid_json"),
        (b'{"body": "x"}', "missing_text"),
        (b'{"text": null}', "missing_text"),
        (b'{"text": 7}', "text_not_a_string"),
        (b'{"text": " \\n\\t"}', "empty_text"),
        (b'{"text": "' + b"x" * 101 + b'"}', "too_long"),
        (b'{"text": "\\ud800"}', "lone_surrogate"),
        (b'{"text": "x", "id": "\\udfff"}', "lone_surrogate"),
        (b'{"text": "' + b"x" * (1 << 21) + b'"}', "line_too_long"),
    ),
)
def test_a_bad_line_is_set_aside_with_its_place(tmp_path, line, reason):
    first, rest = LINES.split(b"\n", 1)
    file = write(tmp_path / "a.jsonl", first + b"\n" + line + b"\n" + rest)

    documents, bad = read_all([file], tmp_path, maximum_characters=100)

    assert texts(documents) == ["one", "two", "three"]
    assert [{key: record[key] for key in ("file", "line", "row", "offset", "reason")} for record in bad] == [
        {"file": str(file), "line": 2, "row": None, "offset": len(first) + 1, "reason": reason}
    ]


def test_a_gigantic_line_is_never_held_in_memory(tmp_path):
    import tracemalloc

    file = write(tmp_path / "a.jsonl", LINES)
    with open(file, "ab") as handle:
        for _ in range(100):
            handle.write(b"x" * (1 << 20))
        handle.write(b"\n" + LINES)

    tracemalloc.start()
    documents, bad = read_all([file], tmp_path, maximum_characters=1000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert texts(documents) == ["one", "two", "three"] * 2
    assert bad[0]["detail"].startswith("104857601 bytes")
    # The limit on a line is 1 MiB + 12,000 bytes here; readline may hold it twice.
    assert peak < 8 << 20


@pytest.mark.parametrize("suffix", (".gz", ".zst"))
def test_a_cut_stream_keeps_what_came_before(tmp_path, suffix):
    # Not compressible, so that the cut falls among the documents.
    lines = [json.dumps({"text": str(hash_number)}).encode() + b"\n" for hash_number in _numbers(20_000)]
    data = b"".join(lines)
    packed = gzip.compress(data) if suffix == ".gz" else zstandard.compress(data)
    cut = write(tmp_path / f"a.jsonl{suffix}", packed[: len(packed) // 2])
    after = write(tmp_path / "b.jsonl", LINES)

    documents, bad = read_all([cut, after], tmp_path)

    kept = len(documents) - 3
    assert 0 < kept < 20_000
    assert texts(documents) == [json.loads(line)["text"] for line in lines[:kept]] + ["one", "two", "three"]
    assert [(record["reason"], record["line"], record["offset"]) for record in bad] == [
        ("cut_stream", kept + 1, sum(map(len, lines[:kept])))
    ]


@pytest.mark.parametrize(
    "data",
    (gzip.compress(LINES) + b"tail", b"no gzip at all", gzip.compress(LINES)[:-8] + b"\x00" * 8),
    ids=("tail", "other kind", "wrong checksum"),
)
def test_a_damaged_gzip_stream_is_set_aside(tmp_path, data):
    after = write(tmp_path / "b.jsonl", LINES)

    documents, bad = read_all([write(tmp_path / "a.jsonl.gz", data), after], tmp_path)

    assert texts(documents)[-3:] == ["one", "two", "three"]
    assert [record["reason"] for record in bad] == ["damaged_stream"]


@pytest.mark.parametrize(
    "data", (zstandard.compress(LINES) + b"tail", b"no zstd at all"), ids=("tail", "other kind")
)
def test_a_damaged_zstd_stream_is_set_aside(tmp_path, data):
    after = write(tmp_path / "b.jsonl", LINES)

    documents, bad = read_all([write(tmp_path / "a.jsonl.zst", data), after], tmp_path)

    assert texts(documents)[-3:] == ["one", "two", "three"]
    assert [record["reason"] for record in bad] == ["damaged_stream"]


def test_parquet_rows_are_documents(tmp_path):
    table = pa.table({"id": [1, 2, None], "text": ["one", None, "three"], "topic": ["x", "y", None]})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=2)

    documents, bad = read_all([tmp_path / "a.parquet"], tmp_path, metadata_fields=("topic",))

    assert [(document.id, document.text, document.metadata) for document in documents] == [
        ("1", "one", {"topic": "x"}),
        (f"{tmp_path}/a.parquet:2", "three", {"topic": ""}),
    ]
    assert [(record["row"], record["reason"]) for record in bad] == [(1, "missing_text")]


def test_a_parquet_row_that_is_not_utf8_is_set_aside(tmp_path):
    values = pa.array([b"one", b"tw\xff", b"three"], pa.binary())
    column = pa.StringArray.from_buffers(3, values.buffers()[1], values.buffers()[2])
    pq.write_table(pa.table({"text": column}), tmp_path / "a.parquet")

    documents, bad = read_all([tmp_path / "a.parquet"], tmp_path)

    assert texts(documents) == ["one", "three"]
    assert [(record["row"], record["reason"]) for record in bad] == [(1, "invalid_utf8")]


def test_a_damaged_row_group_does_not_lose_the_others(tmp_path):
    file = tmp_path / "a.parquet"
    table = pa.table({"text": [f"document {i}" for i in range(30)]})
    pq.write_table(table, file, row_group_size=10, compression="zstd", use_dictionary=False)
    column = pq.ParquetFile(file).metadata.row_group(1).column(0)
    data = bytearray(file.read_bytes())
    start = column.data_page_offset
    data[start : start + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    file.write_bytes(data)

    documents, bad = read_all([file], tmp_path)

    assert texts(documents) == [f"document {i}" for i in (*range(10), *range(20, 30))]
    assert [(record["row"], record["reason"]) for record in bad] == [(10, "damaged_parquet")]


def test_a_parquet_file_of_another_kind_is_set_aside(tmp_path):
    broken = write(tmp_path / "a.parquet", b"PAR1 but no more")

    documents, bad = read_all([broken, write(tmp_path / "b.jsonl", LINES)], tmp_path)

    assert len(documents) == 3
    assert [record["reason"] for record in bad] == ["damaged_parquet"]


def test_a_parquet_file_without_the_text_column_names_its_columns(tmp_path):
    pq.write_table(pa.table({"body": ["x"], "id": ["1"]}), tmp_path / "a.parquet")

    with pytest.raises(InputError, match=r"no column 'text'; corpus.text_field may be: body, id"):
        list(read_documents([tmp_path / "a.parquet"]))


def test_a_folder_is_read_in_the_order_of_its_paths(tmp_path):
    (tmp_path / "c" / "deep").mkdir(parents=True)
    (tmp_path / ".hidden").mkdir()
    for name in ("c/deep/b.txt", "c/a.txt", "b.txt", "a.txt", ".hidden/x.txt", "notes.md", ".x.txt"):
        (tmp_path / name).write_text(f"text of {name}")

    documents, bad = read_all([tmp_path], tmp_path / "out")

    assert [Path(document.id).relative_to(tmp_path).as_posix() for document in documents] == [
        "a.txt",
        "b.txt",
        "c/a.txt",
        "c/deep/b.txt",
    ]
    assert texts(documents)[2] == "text of c/a.txt"
    assert bad == []


@pytest.mark.parametrize(
    ("data", "reason"),
    ((b"\xff\xfe", "invalid_utf8"), (b" \n", "empty_text"), (b"x" * 11, "too_long"), (b"x" * 99, "too_long")),
)
def test_a_bad_text_file_is_set_aside(tmp_path, data, reason):
    good = write(tmp_path / "good.txt", "\ufeff漢字漢字漢字漢字漢字".encode())

    documents, bad = read_all([write(tmp_path / "bad.txt", data), good], tmp_path, maximum_characters=10)

    assert texts(documents) == ["漢字漢字漢字漢字漢字"]
    assert [record["reason"] for record in bad] == [reason]


def test_the_title_is_the_first_line(tmp_path):
    file = write(
        tmp_path / "a.jsonl",
        b'{"title": " A\\n title ", "text": "x"}\n{"title": "", "text": "y"}\n{"text": "z"}\n',
    )

    documents, _ = read_all([file], tmp_path, title_field="title")

    assert texts(documents) == ["A title\nx", "y", "z"]
    assert [document.metadata["title"] for document in documents] == [" A\n title ", "", ""]


def test_metadata_are_strings(tmp_path):
    file = write(
        tmp_path / "a.jsonl", '{"id": 7, "text": "x", "n": 1.5, "list": ["é"], "none": null}'.encode()
    )

    documents, _ = read_all([file], tmp_path, metadata_fields=("n", "list", "none", "absent"))

    assert documents[0].id == "7"
    assert documents[0].metadata == {"n": "1.5", "list": '["é"]', "none": "", "absent": ""}


def test_a_document_without_an_id_is_named_by_its_place(tmp_path):
    file = write(tmp_path / "a.jsonl", b'\n{"text": "x"}\n')

    documents, _ = read_all([file], tmp_path)

    assert documents[0].id == f"{file}:2"
    assert documents[0].position == f"{file}, line 2, offset 1"


@pytest.mark.parametrize(
    ("name", "message"),
    (
        ("missing.jsonl", "missing.jsonl: no such file or folder"),
        ("a.csv", "a.csv: unknown kind of file; supported are .jsonl"),
        ("a.txt.gz", "unknown kind of file"),
        ("empty", "empty: no readable file in this folder"),
    ),
)
def test_an_unreadable_path_is_refused_before_reading(tmp_path, name, message):
    write(tmp_path / "a.csv", b"x")
    write(tmp_path / "a.txt.gz", b"x")
    (tmp_path / "empty").mkdir()

    with pytest.raises(InputError, match=message):
        read_documents([tmp_path / name])


def test_a_file_named_twice_is_refused(tmp_path):
    file = write(tmp_path / "a.jsonl", LINES)

    with pytest.raises(InputError, match="comes twice"):
        read_documents([tmp_path, file])


@pytest.mark.parametrize("data", (b"", b"\n\n"))
def test_an_empty_corpus_is_refused(tmp_path, data):
    file = write(tmp_path / "a.jsonl", data)

    with pytest.raises(InputError, match="no usable document; correct corpus.paths or corpus.text_field"):
        read_all([file], tmp_path)


def _numbers(count: int) -> list[int]:
    state, numbers = 1, []
    for _ in range(count):
        state = state * 6364136223846793005 % 2**64 + 1442695040888963407
        numbers.append(state)
    return numbers
