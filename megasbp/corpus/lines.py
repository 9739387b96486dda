"""Lines of a file, plain or compressed, one by one or in blocks, in bounded memory."""

import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

import zstandard

# What reading a cut or damaged compressed file raises; EOFError means cut.
STREAM_ERRORS = (EOFError, zlib.error, gzip.BadGzipFile, zstandard.ZstdError)

# A zstd block is at most 128 KB and may take 4 bytes, so one piece of input becomes at most 256 MB, and some
# 30 KB where a corpus compresses as text does. Smaller pieces cost calls: 1 KB is 40% slower.
_COMPRESSED_PIECE = 8192
_SKIPPED_PIECE = 1 << 20
# Above the buffer of every stream here, so that bytes come from its source straight into the block.
_PIECE = 1 << 18
# Decompressed bytes that are handed on at once.
BLOCK_BYTES = 4 << 20


def open_lines(path: Path) -> BinaryIO:
    """Opens a file for `readline`, decompressing by suffix (.gz, .zst)."""
    if path.name.lower().endswith(".gz"):
        return cast(BinaryIO, gzip.open(path, "rb"))
    if path.name.lower().endswith(".zst"):
        return io.BufferedReader(_ZstandardFrames(path), buffer_size=1 << 17)
    return open(path, "rb")


def bounded_lines(stream: BinaryIO, limit: int) -> Iterator[tuple[int, int, bytes | None]]:
    """Yields (offset, size, line) of each line; above `limit` bytes the line is None and never held whole.

    Offsets and sizes are in bytes of the decompressed stream, sizes with the line's end.
    """
    offset = 0
    while line := stream.readline(limit + 1):
        size = len(line)
        if size > limit and not line.endswith(b"\n"):
            while rest := stream.readline(_SKIPPED_PIECE):
                size += len(rest)
                if rest.endswith(b"\n"):
                    break
            yield offset, size, None
        else:
            yield offset, size, line
        offset += size


def line_blocks(
    path: Path, limit: int, start: int = 0, end: int | None = None, block_bytes: int = BLOCK_BYTES
) -> Iterator[tuple[int, bytearray | int]]:
    """Yields (offset, whole lines) of the lines that begin within bytes [start, end).

    A line of which `limit` bytes do not hold the end is never held whole, but comes as (offset, size), its
    size with its end.

    Args:
        path: plain or compressed by suffix; only a plain file can be read in part.
        start, end: a range of the file; None means to its end.
        block_bytes: a block is cut at the first line's end after this much.

    Raises:
        One of STREAM_ERRORS, after every line that came whole before the damage.
    """
    with open_lines(path) as stream:
        offset = _first_line(stream, start)
        while end is None or offset < end:
            size = block_bytes if end is None else min(block_bytes, end - offset)
            block, error = _read(stream, size, limit)
            last_line = block.rfind(b"\n", 0, len(block) - 1) + 1
            if error is not None:
                # What came of the last line is lost with the rest.
                whole = block.rfind(b"\n") + 1
                if whole:
                    yield offset, block[:whole]
                raise error
            if len(block) - last_line > limit and not block.endswith(b"\n"):
                if last_line:
                    yield offset, block[:last_line]
                size = len(block) - last_line + _skip_line(stream)
                yield offset + last_line, size
                offset += last_line + size
            elif block:
                yield offset, block
                offset += len(block)
            else:
                return


def _first_line(stream: BinaryIO, start: int) -> int:
    """Goes to the first line that begins at `start` or later; returns its offset."""
    if start == 0:
        return 0
    stream.seek(start - 1)
    return start - 1 + _skip_line(stream)


def _skip_line(stream: BinaryIO) -> int:
    """Passes over the rest of a line; returns its size."""
    size = 0
    while rest := stream.readline(_SKIPPED_PIECE):
        size += len(rest)
        if rest.endswith(b"\n"):
            break
    return size


def _read(stream: BinaryIO, size: int, limit: int) -> tuple[bytearray, Exception | None]:
    """`size` bytes and up to `limit` + 1 more, to the end of their last line; fewer at the end of the file or
    where the stream is damaged: then with the error.
    """
    block = bytearray(size)
    held = 0
    try:
        with memoryview(block) as view:
            while held < size and (
                count := cast(io.BufferedReader, stream).readinto1(view[held : held + _PIECE])
            ):
                held += count
        del block[held:]
        if block and not block.endswith(b"\n"):
            block += stream.readline(limit + 1)
    except STREAM_ERRORS as error:
        # A copy: the error's traceback still holds the block, which then cannot be cut.
        return block[:held], error
    return block, None


class _ZstandardFrames(io.RawIOBase):
    """The decompressed bytes of a file of zstd frames.

    The library's own reader takes a file that ends inside a frame for a whole one; this one raises EOFError.
    """

    def __init__(self, path: Path) -> None:
        self._file = open(path, "rb")  # noqa: SIM115 - closed by close()
        # Corpora are often compressed with long windows (--long=31), which the default limit refuses.
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=1 << 31)
        self._frame: zstandard.ZstdDecompressionObj | None = None
        self._input = b""
        self._output = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:  # type: ignore[no-untyped-def,override]
        if not self._output:
            self._output = memoryview(self._decompress())
        count = min(len(buffer), len(self._output))
        buffer[:count] = self._output[:count]
        self._output = self._output[count:]
        return count

    def close(self) -> None:
        self._file.close()
        super().close()

    def _decompress(self) -> bytes:
        """The next bytes, empty only at the end of the file."""
        while piece := self._input or self._file.read(_COMPRESSED_PIECE):
            if self._frame is None:
                self._frame = self._decompressor.decompressobj()
            output = self._frame.decompress(piece)
            self._input = self._frame.unused_data
            if self._frame.eof:
                self._frame = None
            if output:
                return output
        if self._frame is not None:
            raise EOFError("the file ends inside a zstd frame")
        return b""
