"""Documents in batches, without a Python object for each: for work that must keep up with the disk.

What is read, and what is bad and why, is the same as `megasbp.corpus.readers` gives. Two things differ, since
ranges of a file are read on their own: places in files of lines are offsets in bytes instead of line numbers,
and a document without an id is named "file@offset".
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

import megasbp._C as core
from megasbp.corpus.files import file_kind
from megasbp.corpus.lines import STREAM_ERRORS, line_blocks
from megasbp.corpus.pieces import Piece
from megasbp.corpus.quarantine import Position, Quarantine
from megasbp.corpus.readers import BYTE_ORDER_MARK, broken_stream, records
from megasbp.corpus.records import (
    Bad,
    Document,
    Fields,
    document,
    line_too_long,
    name_by_place,
    parse_line,
)

# No valid UTF-8 holds this byte.
SEPARATOR = b"\xff"
_BATCH_BYTES = 4 << 20


@dataclass(frozen=True)
class Texts:
    """Some documents of one file.

    Attributes:
        data: the UTF-8 of each document, followed by SEPARATOR.
        bounds: int64 [documents + 1]; document i is data[bounds[i] : bounds[i + 1] - 1].
        ids: string [documents].
        file: where they stand.
        offsets: int64 [documents], bytes into a file of lines, after decompression, or rows of a Parquet
        file.
    """

    data: bytes
    bounds: np.ndarray
    ids: pa.Array
    file: str
    offsets: np.ndarray

    def __len__(self) -> int:
        """Number of documents."""
        return len(self.offsets)

    @property
    def bytes(self) -> np.ndarray:
        """int64 [documents], size of each document in UTF-8."""
        return np.diff(self.bounds) - len(SEPARATOR)

    def text(self, number: int) -> str:
        """One document."""
        return self.data[self.bounds[number] : self.bounds[number + 1] - len(SEPARATOR)].decode()

    def position(self, number: int) -> Position:
        """Where one document stands."""
        return _position(self.file, int(self.offsets[number]))


def read_texts(pieces: Iterable[Piece], fields: Fields, quarantine: Quarantine) -> Iterator[Texts]:
    """Reads every document of some pieces in order; what is bad goes to the quarantine, which stays open.

    Memory: a few times 4 MB, or of the longest allowed line.

    Raises:
        InputError: a Parquet file lacks the text column, or the share of bad documents is too large.
    """
    for piece in pieces:
        batch = core.TextBatch(
            text_field=fields.text,
            id_field=fields.id,
            title_field=fields.title,
            maximum_characters=fields.maximum_characters,
            maximum_line_bytes=fields.maximum_line_bytes,
            place=name_by_place(Position(piece.file, offset=0)).removesuffix("0"),
        )
        fill = _fill_lines if file_kind(Path(piece.file)) == "lines" else _fill_records
        for _ in fill(batch, piece, fields, quarantine):
            if len(batch):
                texts = _take(batch, piece.file)
                quarantine.accept(len(texts))
                yield texts


def _fill_lines(batch: Any, piece: Piece, fields: Fields, quarantine: Quarantine) -> Iterator[None]:
    end = piece.start or 0
    try:
        for offset, block in line_blocks(
            Path(piece.file), fields.maximum_line_bytes, piece.start or 0, piece.end
        ):
            if isinstance(block, int):
                bad = line_too_long(block, fields)
                quarantine.reject(Position(piece.file, offset=offset), bad.reason, bad.detail)
                end = offset + block
                continue
            start = 0
            while (start := batch.scan(block, start, offset)) < len(block):
                line_end = block.find(b"\n", start) + 1 or len(block)
                line = bytes(block[start:line_end])
                _add_line(batch, line, Position(piece.file, offset=offset + start), fields, quarantine)
                start = line_end
            end = offset + len(block)
            yield
    except STREAM_ERRORS as error:
        bad = broken_stream(error)
        quarantine.reject(Position(piece.file, offset=end), bad.reason, bad.detail)


def _add_line(batch: Any, line: bytes, position: Position, fields: Fields, quarantine: Quarantine) -> None:
    """A line that the C++ scanner leaves to Python's own JSON."""
    if len(line.removesuffix(b"\n")) > fields.maximum_line_bytes:
        record: dict[str, Any] | Bad | None = line_too_long(len(line), fields)
    else:
        record = parse_line(line.removeprefix(BYTE_ORDER_MARK) if position.offset == 0 else line)
    if record is not None:
        _add_record(batch, record, position, fields, quarantine)


def _fill_records(batch: Any, piece: Piece, fields: Fields, quarantine: Quarantine) -> Iterator[None]:
    groups = None if piece.start is None or piece.end is None else range(piece.start, piece.end)
    held = 0
    for position, record in records(Path(piece.file), fields, groups):
        held += _add_record(batch, record, position, fields, quarantine)
        if held >= _BATCH_BYTES:
            held = 0
            yield
    yield


def _add_record(
    batch: Any, record: dict[str, Any] | Bad, position: Position, fields: Fields, quarantine: Quarantine
) -> int:
    """Adds the document to the batch, or its place to the quarantine; returns the document's bytes."""
    read = record if isinstance(record, Bad) else document(record, position, fields)
    if isinstance(read, Document):
        text = read.text.encode()
        place = next((at for at in (position.row, position.offset) if at is not None), -1)
        batch.append(text, read.id.encode(), place)
        return len(text)
    quarantine.reject(position, read.reason, read.detail)
    return 0


def _take(batch: Any, file: str) -> Texts:
    """Moves what the batch holds into Texts."""
    bounds, names = pa.py_buffer(batch.id_bounds), pa.py_buffer(batch.ids)
    ids = pa.LargeStringArray.from_buffers(len(batch), bounds, names)
    texts = Texts(batch.texts, batch.text_bounds, ids, file, batch.offsets)
    batch.clear()
    return texts


def _position(file: str, offset: int) -> Position:
    match file_kind(Path(file)):
        case "lines":
            return Position(file, offset=offset)
        case "parquet":
            return Position(file, row=offset)
        case _:
            return Position(file)
