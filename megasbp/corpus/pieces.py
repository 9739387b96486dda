"""A corpus cut into shards: which part of which file each holds, as a pure function of the files.

Plain files of lines are cut anywhere: a line belongs to the range in which it begins. Parquet files are cut
between row groups. Compressed files of lines and text files stay whole. Neighbours that are small together
form one shard, so the shards hold the corpus in reading order.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from megasbp.corpus.files import file_kind
from megasbp.errors import InputError

_COMPRESSED = (".gz", ".zst")


@dataclass(frozen=True)
class Piece:
    """A file or a part of it.

    Attributes:
        file: its path.
        bytes: its share of the file's size on disk.
        start, end: range of bytes in a plain file of lines, of row groups in a Parquet file; None and None
            for the whole file.
    """

    file: str
    bytes: int
    start: int | None = None
    end: int | None = None


def plan_shards(files: Sequence[Path], shard_bytes: int) -> list[list[Piece]]:
    """The pieces of every shard.

    Args:
        files: in reading order, as `corpus_files` gives them.
        shard_bytes: what a shard holds at most, on disk; one whole file or row group may be more.

    Raises:
        InputError: `shard_bytes` is below 1, or a file cannot be read.
    """
    if shard_bytes < 1:
        raise InputError(f"shard_bytes is {shard_bytes}; set it to at least 1")
    shards: list[list[Piece]] = []
    used = 0
    for piece in (piece for file in files for piece in _pieces(Path(file), shard_bytes)):
        if not shards or used + piece.bytes > shard_bytes:
            shards.append([])
            used = 0
        shards[-1].append(piece)
        used += piece.bytes
    return shards


def _pieces(file: Path, shard_bytes: int) -> Iterator[Piece]:
    size = os.path.getsize(file)
    if file_kind(file) == "parquet":
        yield from _row_groups(file, size, shard_bytes)
    elif file_kind(file) == "lines" and not file.name.lower().endswith(_COMPRESSED) and size > shard_bytes:
        for start in range(0, size, shard_bytes):
            end = min(start + shard_bytes, size)
            yield Piece(str(file), end - start, start, end)
    else:
        yield Piece(str(file), size)


def _row_groups(file: Path, size: int, shard_bytes: int) -> Iterator[Piece]:
    try:
        metadata = pq.read_metadata(file)
    except (pa.ArrowException, OSError):
        # A damaged file counts as one bad document when it is read.
        yield Piece(str(file), size)
        return
    groups = [metadata.row_group(group) for group in range(metadata.num_row_groups)]
    sizes = [sum(group.column(i).total_compressed_size for i in range(group.num_columns)) for group in groups]
    first = 0
    for last in range(len(sizes)):
        held = sum(sizes[first : last + 1])
        if last + 1 == len(sizes) or held + sizes[last + 1] > shard_bytes:
            yield Piece(str(file), held, first, last + 1)
            first = last + 1


def total_bytes(pieces: Iterable[Piece]) -> int:
    """Size of pieces on disk."""
    return sum(piece.bytes for piece in pieces)
