"""Streaming readers: JSON lines, Parquet and text become documents; what is bad goes to the quarantine."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from megasbp.corpus.files import corpus_files, file_kind
from megasbp.corpus.lines import STREAM_ERRORS, bounded_lines, open_lines
from megasbp.corpus.quarantine import Position, Quarantine
from megasbp.errors import InputError

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_ROWS_AT_ONCE = 256


@dataclass(frozen=True)
class Document:
    """One document.

    Attributes:
        id: from the corpus, or "file:line", "file:row" or "file" where it gives none.
        text: valid Unicode, not blank; the title, if asked for, is its first line.
        metadata: the wanted fields as strings, "" where missing; the title under its field's name.
        position: file and line or row.
    """

    id: str
    text: str
    metadata: dict[str, str]
    position: str


@dataclass(frozen=True)
class _Fields:
    """What makes a record a document."""

    text: str
    id: str
    title: str | None
    metadata: tuple[str, ...]
    maximum_characters: int


@dataclass(frozen=True)
class _Bad:
    reason: str
    detail: str = ""


_Record = dict[str, Any] | _Bad


def read_documents(
    paths: Sequence[Path],
    *,
    text_field: str = "text",
    id_field: str = "id",
    title_field: str | None = None,
    metadata_fields: Sequence[str] = (),
    maximum_characters: int = 1_000_000,
    quarantine: Quarantine | None = None,
) -> Iterator[Document]:
    """Reads every document of files and folders, in order, one at a time.

    A bad document never stops the reading. Bad are: a line that is not a JSON object, is not UTF-8, or is
    longer than any allowed document (it is not held in memory); a text that is missing, no string, blank, too
    long or not valid Unicode; a cut or damaged compressed stream, or a damaged row group of a Parquet file
    (what follows in the stream or group is lost and counts as one).

    Memory: a line, or 256 rows of a Parquet file and its compressed pages.

    Args:
        paths: see `megasbp.corpus.files`.
        text_field, id_field, title_field, metadata_fields: fields of a JSON object or columns of a Parquet
            file.
        maximum_characters: longer texts, title included, are bad.
        quarantine: counts and records bad documents and is closed at the end; None passes over them in
            silence, for reading again what has been counted before.

    Raises:
        InputError: at once when a path is missing or of an unknown kind; while reading when the share of bad
            documents is too large, a Parquet file lacks the text column, or there is no good document at all.
    """
    fields = _Fields(text_field, id_field, title_field, tuple(metadata_fields), maximum_characters)
    return _read(corpus_files(paths), fields, quarantine)


def _read(files: list[Path], fields: _Fields, quarantine: Quarantine | None) -> Iterator[Document]:
    found = False
    try:
        for file in files:
            for position, record in _records(file, fields):
                document = record if isinstance(record, _Bad) else _document(record, position, fields)
                if isinstance(document, Document):
                    found = True
                    if quarantine:
                        quarantine.accept()
                    yield document
                elif quarantine:
                    quarantine.reject(position, document.reason, document.detail)
    except BaseException:
        if quarantine:
            quarantine.discard()
        raise
    if quarantine:
        quarantine.close()
    if not found:
        names = ", ".join(map(str, files[:3])) + (", ..." if len(files) > 3 else "")
        raise InputError(
            f"{names}: no usable document; correct corpus.paths or corpus.text_field ({fields.text!r})"
        )


def _document(record: dict[str, Any], position: Position, fields: _Fields) -> Document | _Bad:
    text = record.get(fields.text)
    if text is None:
        return _Bad("missing_text", f"no field {fields.text!r}; there are: {', '.join(map(str, record))}")
    if not isinstance(text, str):
        return _Bad("text_not_a_string", f"field {fields.text!r} is of type {type(text).__name__}")
    if not text.strip():
        return _Bad("empty_text")
    metadata = {name: _as_string(record.get(name)) for name in fields.metadata}
    if fields.title is not None:
        title = _as_string(record.get(fields.title))
        metadata[fields.title] = title
        # One line, so that the text can be told from its title again.
        first_line = " ".join(title.split())
        text = f"{first_line}\n{text}" if first_line else text
    if len(text) > fields.maximum_characters:
        return _Bad("too_long", f"{len(text)} characters, allowed are {fields.maximum_characters}")
    place = position.line if position.line is not None else position.row
    name = _as_string(record.get(fields.id)) or (
        position.file if place is None else f"{position.file}:{place}"
    )
    if not all(map(_is_unicode, (text, name, *metadata.values()))):
        return _Bad("lone_surrogate", "half of a UTF-16 pair, which is no Unicode character")
    return Document(name, text, metadata, str(position))


def _records(file: Path, fields: _Fields) -> Iterator[tuple[Position, _Record]]:
    match file_kind(file):
        case "lines":
            return _line_records(file, fields.maximum_characters)
        case "parquet":
            return _parquet_records(file, fields)
        case _:
            return _text_records(file, fields)


def _line_records(file: Path, maximum_characters: int) -> Iterator[tuple[Position, _Record]]:
    # JSON may spend 12 bytes on one character (two \uXXXX); the rest is for the other fields.
    limit = 12 * maximum_characters + (1 << 20)
    number = next_offset = 0
    try:
        with open_lines(file) as stream:
            for offset, size, line in bounded_lines(stream, limit):
                number += 1
                next_offset = offset + size
                position = Position(str(file), line=number, offset=offset)
                if line is None:
                    yield position, _Bad("line_too_long", f"{size} bytes, allowed are {limit}")
                elif record := _parse(line.removeprefix(_BYTE_ORDER_MARK) if number == 1 else line):
                    yield position, record
    except STREAM_ERRORS as error:
        reason = "cut_stream" if isinstance(error, EOFError) else "damaged_stream"
        yield Position(str(file), line=number + 1, offset=next_offset), _Bad(reason, str(error))


def _parse(line: bytes) -> _Record | None:
    """The object on a line; None for a blank line, which is no document."""
    if not line.strip():
        return None
    try:
        value = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return _Bad("invalid_utf8", str(error))
    except (ValueError, RecursionError) as error:
        return _Bad("invalid_json", str(error))
    # An empty object would read as a blank line.
    return (
        value
        if isinstance(value, dict) and value
        else _Bad("not_an_object", f"a JSON {type(value).__name__}")
    )


def _parquet_records(file: Path, fields: _Fields) -> Iterator[tuple[Position, _Record]]:
    with open(file, "rb") as handle:
        try:
            parquet = pq.ParquetFile(handle)
        except (pa.ArrowException, OSError) as error:
            yield Position(str(file)), _Bad("damaged_parquet", str(error))
            return
        columns = parquet.schema_arrow.names
        if fields.text not in columns:
            raise InputError(
                f"{file}: no column {fields.text!r}; corpus.text_field may be: {', '.join(columns)}"
            )
        wanted = {fields.text, fields.id, fields.title, *fields.metadata}
        start = 0
        for group in range(parquet.num_row_groups):
            row = start
            try:
                for batch in parquet.iter_batches(
                    _ROWS_AT_ONCE, row_groups=[group], columns=[name for name in columns if name in wanted]
                ):
                    for record in _rows(batch):
                        yield Position(str(file), row=row), record
                        row += 1
            except (pa.ArrowException, OSError) as error:
                yield Position(str(file), row=row), _Bad("damaged_parquet", str(error))
            start += parquet.metadata.row_group(group).num_rows


def _rows(batch: pa.RecordBatch) -> Iterator[_Record]:
    columns = [_column_values(column) for column in batch.columns]
    for values in zip(*columns, strict=True):
        bad = next((value for value in values if isinstance(value, _Bad)), None)
        yield bad or dict(zip(batch.schema.names, values, strict=True))


def _column_values(column: pa.Array) -> list[Any]:
    try:
        return column.to_pylist()
    except UnicodeDecodeError:
        return [_scalar_value(scalar) for scalar in column]


def _scalar_value(scalar: pa.Scalar) -> Any:
    try:
        return scalar.as_py()
    except UnicodeDecodeError as error:
        return _Bad("invalid_utf8", str(error))


def _text_records(file: Path, fields: _Fields) -> Iterator[tuple[Position, _Record]]:
    position = Position(str(file))
    # A character is at most four bytes of UTF-8.
    limit = 4 * fields.maximum_characters + len(_BYTE_ORDER_MARK)
    with open(file, "rb") as handle:
        data = handle.read(limit + 1)
    if len(data) > limit:
        yield (
            position,
            _Bad("too_long", f"above {limit} bytes, allowed are {fields.maximum_characters} characters"),
        )
        return
    try:
        yield position, {fields.text: data.removeprefix(_BYTE_ORDER_MARK).decode("utf-8")}
    except UnicodeDecodeError as error:
        yield position, _Bad("invalid_utf8", str(error))


def _as_string(value: Any) -> str:
    if value is None:
        return ""
    return (
        value
        if isinstance(value, str)
        else json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    )


def _is_unicode(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
