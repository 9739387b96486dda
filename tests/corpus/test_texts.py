"""The fast reader gives what the plain one gives, for any bytes and any cut of the files."""

import gzip
import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

import megasbp._C as core
from megasbp.corpus.lines import line_blocks
from megasbp.corpus.pieces import Piece, plan_shards
from megasbp.corpus.quarantine import Quarantine
from megasbp.corpus.readers import read_documents
from megasbp.corpus.records import Fields
from megasbp.corpus.texts import read_texts
from megasbp.errors import InputError

MAXIMUM = 40
ODD_LINES = (
    b'{"id": "plain", "text": "one"}',
    b' {"text" : "spaces", "id":"s", "n": [1, -2.5e+3, {"a": [true, false, null]}], "o": {}} ',
    b'{"text": "first", "text": "the last one counts", "id": "a", "id": "b"}',
    b'{"text": "escapes \\" \\\\ \\/ \\b\\f\\n\\r\\t \\u00e9 \\ud83d\\ude00 \\u0041", "id": "\\u00fc"}',
    '{"text": "漢字 é 👩‍👩‍👧 \U0010ffff", "id": "ünï", "title": "Straße"}'.encode(),
    b'{"text": "t", "title": "  two\\t words \\n more  ", "id": 17}',
    '{"text": "t", "title": "wide\u00a0space\u2003and\u3000more\u2013dash", "id": -5}'.encode(),
    b'{"text": "t", "title": "", "id": ""}',
    b'{"text": "t", "title": null, "id": null}',
    b'{"text": "t", "title": 7, "id": 1.50}',
    b'{"text": "t", "title": ["x"], "id": {"b": 1, "a": [true, null]}}',
    b'{"text": "t", "id": 123456789012345678901234567890}',
    b'{"text": "t", "id": -0}',
    b'{"text": "t", "id": 007}',
    b'{"text": "t", "id": "x", "n": NaN, "m": -Infinity, "k": 1e999}',
    b'{"text": "t", "n": ' + b"9" * 4000 + b"}",
    b'{"text": "t", "n": ' + b"9" * 5000 + b"}",
    b'{"te\\u0078t": "an escaped name", "id": "n"}',
    b'{"text": "t", "deep": ' + b"[" * 80 + b"]" * 80 + b"}",
    b"[" * 100_000,
    b"",
    b" \t\x0b\x0c\r",
    b"{}",
    b"[1]",
    b'"text"',
    b"null",
    b'{"text": "cut',
    b'{"text": "t"} trailing',
    b'{"text": "t",}',
    b'{"text" "t"}',
    b'{text: "t"}',
    b'{"text": "bad escape \\x"}',
    b'{"text": "bad escape \\u12g4"}',
    b'{"text": "t", "n": 01}',
    b'{"text": "t", "n": 1.}',
    b'{"text": "t", "n": .5}',
    b'{"text": "t", "n": +1}',
    b'{"text": "t", "n": 1e}',
    b'{"text": "t", "n": tru}',
    b'{"body": "x"}',
    b'{"text": null}',
    b'{"text": 7}',
    b'{"text": ["t"]}',
    b'{"text": " \\n\\t\\u001c\\u00a0"}',
    '{"text": "\u2003\u3000"}'.encode(),
    '{"text": "\u2003x", "id": "wide"}'.encode(),
    b'{"text": "' + b"x" * MAXIMUM + b'", "id": "just"}',
    b'{"text": "' + b"x" * (MAXIMUM + 1) + b'", "id": "above"}',
    ('{"text": "' + "é" * MAXIMUM + '", "id": "just"}').encode(),
    ('{"text": "' + "é" * (MAXIMUM + 1) + '", "id": "above"}').encode(),
    b'{"text": "' + b"x" * (MAXIMUM - 4) + b'", "title": "title", "id": "above with its title"}',
    b'{"text": "\\ud800"}',
    b'{"text": "\\ude00\\ud83d"}',
    b'{"text": "x", "id": "\\udfff"}',
    b'{"text": "x", "other": "\\ud800", "id": "kept"}',
    b'{"text": "raw\ttab"}',
    b'{"text": "nul\x00"}',
    b'{"text": "\x7f delete", "id": "d"}',
    b'{"text": "\xff"}',
    b'{"text": "overlong \xc0\xaf"}',
    b'{"text": "surrogate \xed\xa0\x80"}',
    b'{"text": "beyond \xf4\x90\x80\x80"}',
    b'{"text": "cut character \xe6\xbc"}',
    b'{"text": "x", "other": "\xfe", "id": "bad elsewhere"}',
    b'{"text": "x", "other": "' + b"y" * (2 << 20) + b'"}',
    b'\xef\xbb\xbf{"text": "a mark in the middle"}',
)


def fields(title: str | None = None, maximum: int = MAXIMUM) -> Fields:
    return Fields("text", "id", title, (), maximum)


def fast(pieces: list[Piece], folder: Path, wanted: Fields):
    """(id, text, offset) of each document, and (reason, detail) of each bad one."""
    quarantine = Quarantine(folder / "fast", maximum_share=1.0)
    documents = []
    for texts in read_texts(pieces, wanted, quarantine):
        for number in range(len(texts)):
            documents.append((texts.ids[number].as_py(), texts.text(number), texts.position(number)))
    quarantine.close()
    assert quarantine.accepted == len(documents)
    return documents, [json.loads(line) for line in quarantine.path.read_text().splitlines()]


def plain(files: list[Path], folder: Path, wanted: Fields):
    quarantine = Quarantine(folder / "plain", maximum_share=1.0)
    try:
        documents = [
            (document.id, document.text)
            for document in read_documents(
                files,
                title_field=wanted.title,
                maximum_characters=wanted.maximum_characters,
                quarantine=quarantine,
            )
        ]
    except InputError as error:
        assert "no usable document" in str(error)
        documents = []
    return documents, [json.loads(line) for line in quarantine.path.read_text().splitlines()]


def assert_same(file: Path, folder: Path, wanted: Fields) -> None:
    """Both readers agree on a file, but for how they call places."""
    documents, bad = fast([Piece(str(file), 0)], folder, wanted)
    expected, expected_bad = plain([file], folder, wanted)

    assert [text for _, text, _ in documents] == [text for _, text in expected]
    for (name, _, position), (expected_name, _) in zip(documents, expected, strict=True):
        by_place = f"{file}@{position.offset}"
        assert name == (by_place if expected_name.startswith(f"{file}:") else expected_name)
    for key in ("reason", "detail", "offset"):
        assert [record[key] for record in bad] == [record[key] for record in expected_bad]


def test_ordinary_lines_need_no_python():
    batch = core.TextBatch("text", "id", "title", MAXIMUM, fields().maximum_line_bytes, "a.jsonl@")
    lines = b"\n".join([*ODD_LINES[:6], *ODD_LINES[7:9], *ODD_LINES[20:22]])

    assert batch.scan(lines, 0, 0) == len(lines)
    assert len(batch) == 8


@pytest.mark.parametrize("title", (None, "title"))
@pytest.mark.parametrize("line_end", (b"\n", b"\r\n"))
def test_odd_lines_read_as_the_plain_reader_reads_them(tmp_path, title, line_end):
    file = tmp_path / "a.jsonl"
    file.write_bytes(b"\xef\xbb\xbf" + line_end.join(ODD_LINES))

    assert_same(file, tmp_path, fields(title))


def test_damaged_lines_read_as_the_plain_reader_reads_them(tmp_path):
    random_ = random.Random(7)
    short = [line for line in ODD_LINES if 0 < len(line) < 200]
    lines = []
    for _ in range(3000):
        line = bytearray(random_.choice(short))
        for _ in range(random_.randrange(3)):
            place = random_.randrange(len(line))
            match random_.randrange(3):
                case 0:
                    line[place] = random_.choice(b'"\\{}[]:,0e-. \t\x00\x80\xc3\xe2\xed\xf0u')
                case 1:
                    del line[place]
                    line = line or bytearray(b"{")
                case _:
                    line[place:place] = random_.choice(short)[:8]
        lines.append(bytes(line).replace(b"\n", b""))
    file = tmp_path / "a.jsonl"
    file.write_bytes(b"\n".join(lines))

    assert_same(file, tmp_path, fields("title"))


@pytest.mark.parametrize("pack", (gzip.compress, zstandard.compress), ids=("gzip", "zstd"))
def test_a_cut_stream_keeps_its_whole_lines(tmp_path, pack):
    random_ = random.Random(3)
    lines = [b'{"text": "%016x"}' % random_.getrandbits(64) for _ in range(20_000)]
    data = pack(b"\n".join(lines))
    file = tmp_path / ("a.jsonl.gz" if pack is gzip.compress else "a.jsonl.zst")
    file.write_bytes(data[: len(data) * 2 // 3])

    documents, _ = fast([Piece(str(file), 0)], tmp_path, fields())

    assert len(documents) > 5000
    assert_same(file, tmp_path, fields())


def test_any_cut_of_a_file_gives_every_line_once(tmp_path):
    data = b"".join(
        (
            b'{"text": "one"}\r\n',
            b'{"text": "two"}\n\n',
            b'{"text": "' + b"long " * 30 + b'"}\n',
            b"broken\n",
            b'{"text": "last, without an end"}',
        )
    )
    file = tmp_path / "a.jsonl"
    file.write_bytes(data)
    wanted = fields(maximum=1000)
    whole = fast([Piece(str(file), 0)], tmp_path, wanted)

    for shard_bytes in (1, 7, *range(15, 20), 33, len(data) - 1, len(data)):
        shards = plan_shards([file], shard_bytes)
        parts = [fast(pieces, tmp_path, wanted) for pieces in shards]
        assert [document for documents, _ in parts for document in documents] == whole[0]
        assert [record for _, bad in parts for record in bad] == whole[1]
    assert len(whole[0]) == 4 and len(whole[1]) == 1


@pytest.mark.parametrize("block_bytes", (1, 7, 64, 1 << 20))
def test_a_line_above_the_limit_is_never_held(tmp_path, block_bytes):
    file = tmp_path / "a.jsonl"
    file.write_bytes(b"short\n" + b"x" * 5000 + b"\nnext\n" + b"y" * 5000)

    blocks = list(line_blocks(file, limit=100, block_bytes=block_bytes))

    held = [block for _, block in blocks if not isinstance(block, int)]
    sizes = [block if isinstance(block, int) else len(block) for _, block in blocks]
    assert sum(sizes) == file.stat().st_size
    assert [offset for offset, _ in blocks] == [sum(sizes[:number]) for number in range(len(sizes))]
    if block_bytes <= 64:
        assert b"".join(held) == b"short\nnext\n"
        assert [block for _, block in blocks if isinstance(block, int)] == [5001, 5000]


def test_row_groups_and_text_files_read_as_the_plain_reader_reads_them(tmp_path):
    table = pa.table({"id": ["a", "b", None, "d"], "text": ["one", "", "three", "four"]})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=1)
    (tmp_path / "b.txt").write_text("a text file")
    files = [tmp_path / "a.parquet", tmp_path / "b.txt"]
    expected, expected_bad = plain(files, tmp_path, fields())

    shards = plan_shards(files, 1)
    parts = [fast(pieces, tmp_path, fields()) for pieces in shards]

    assert len(shards) == 5
    assert [(name, text) for documents, _ in parts for name, text, _ in documents] == expected
    assert [record for _, bad in parts for record in bad] == expected_bad


def test_small_neighbours_share_a_shard_and_the_order_is_kept(tmp_path):
    sizes = (30, 30, 100, 10, 95, 5)
    files = [tmp_path / f"{number}.txt" for number in range(len(sizes))]
    for file, size in zip(files, sizes, strict=True):
        file.write_bytes(b"x" * size)

    shards = plan_shards(files, 100)

    assert [[piece.bytes for piece in shard] for shard in shards] == [[30, 30], [100], [10], [95, 5]]
    assert [piece.file for shard in shards for piece in shard] == list(map(str, files))


def test_a_shard_size_below_one_byte_is_refused(tmp_path):
    with pytest.raises(InputError, match="shard_bytes is 0"):
        plan_shards([tmp_path / "a.txt"], 0)
