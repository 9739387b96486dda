"""Streaming readers: JSON lines, Parquet and text become documents; what is bad goes to the quarantine."""

from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from megasbp.corpus.files import corpus_files, file_kind
from megasbp.corpus.lines import STREAM_ERRORS, bounded_lines, open_lines
from megasbp.corpus.quarantine import Position, Quarantine
from megasbp.corpus.records import Bad, Document, Fields, Record, document, line_too_long, parse_line
from megasbp.errors import InputError

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_ROWS_AT_ONCE = 256


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
    fields = Fields(text_field, id_field, title_field, tuple(metadata_fields), maximum_characters)
    return _read(corpus_files(paths), fields, quarantine)


def _read(files: list[Path], fields: Fields, quarantine: Quarantine | None) -> Iterator[Document]:
    found = False
    try:
        for file in files:
            for position, record in records(file, fields):
                read = record if isinstance(record, Bad) else document(record, position, fields)
                if isinstance(read, Document):
                    found = True
                    if quarantine:
                        quarantine.accept()
                    yield read
                elif quarantine:
                    quarantine.reject(position, read.reason, read.detail)
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


def records(
    file: Path, fields: Fields, row_groups: Sequence[int] | None = None
) -> Iterator[tuple[Position, Record]]:
    """Every record of a file with its place.

    Args:
        row_groups: of a Parquet file; None means all.

    Raises:
        InputError: a Parquet file lacks the text column.
    """
    match file_kind(file):
        case "lines":
            return _line_records(file, fields)
        case "parquet":
            return _parquet_records(file, fields, row_groups)
        case _:
            return _text_records(file, fields)


def _line_records(file: Path, fields: Fields) -> Iterator[tuple[Position, Record]]:
    number = next_offset = 0
    try:
        with open_lines(file) as stream:
            for offset, size, line in bounded_lines(stream, fields.maximum_line_bytes):
                number += 1
                next_offset = offset + size
                position = Position(str(file), line=number, offset=offset)
                if line is None:
                    yield position, line_too_long(size, fields)
                elif record := parse_line(line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line):
                    yield position, record
    except STREAM_ERRORS as error:
        yield Position(str(file), line=number + 1, offset=next_offset), broken_stream(error)


def broken_stream(error: Exception) -> Bad:
    """Why a compressed stream ended early, from one of `lines.STREAM_ERRORS`."""
    return Bad("cut_stream" if isinstance(error, EOFError) else "damaged_stream", str(error))


def _parquet_records(
    file: Path, fields: Fields, row_groups: Sequence[int] | None
) -> Iterator[tuple[Position, Record]]:
    with open(file, "rb") as handle:
        try:
            parquet = pq.ParquetFile(handle)
        except (pa.ArrowException, OSError) as error:
            yield Position(str(file)), Bad("damaged_parquet", str(error))
            return
        columns = parquet.schema_arrow.names
        if fields.text not in columns:
            raise InputError(
                f"{file}: no column {fields.text!r}; corpus.text_field may be: {', '.join(columns)}"
            )
        wanted = {fields.text, fields.id, fields.title, *fields.metadata}
        starts = list(
            accumulate(
                (parquet.metadata.row_group(i).num_rows for i in range(parquet.num_row_groups)), initial=0
            )
        )
        for group in range(parquet.num_row_groups) if row_groups is None else row_groups:
            row = starts[group]
            try:
                for batch in parquet.iter_batches(
                    _ROWS_AT_ONCE, row_groups=[group], columns=[name for name in columns if name in wanted]
                ):
                    for record in _rows(batch):
                        yield Position(str(file), row=row), record
                        row += 1
            except (pa.ArrowException, OSError) as error:
                yield Position(str(file), row=row), Bad("damaged_parquet", str(error))


def _rows(batch: pa.RecordBatch) -> Iterator[Record]:
    columns = [_column_values(column) for column in batch.columns]
    for values in zip(*columns, strict=True):
        bad = next((value for value in values if isinstance(value, Bad)), None)
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
        return Bad("invalid_utf8", str(error))


def _text_records(file: Path, fields: Fields) -> Iterator[tuple[Position, Record]]:
    position = Position(str(file))
    # A character is at most four bytes of UTF-8.
    limit = 4 * fields.maximum_characters + len(BYTE_ORDER_MARK)
    with open(file, "rb") as handle:
        data = handle.read(limit + 1)
    if len(data) > limit:
        yield (
            position,
            Bad("too_long", f"above {limit} bytes, allowed are {fields.maximum_characters} characters"),
        )
        return
    try:
        yield position, {fields.text: data.removeprefix(BYTE_ORDER_MARK).decode("utf-8")}
    except UnicodeDecodeError as error:
        yield position, Bad("invalid_utf8", str(error))
