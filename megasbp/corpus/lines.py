"""Lines of a file, plain or compressed, in bounded memory."""

import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

import zstandard

# What reading a cut or damaged compressed file raises; EOFError means cut.
STREAM_ERRORS = (EOFError, zlib.error, gzip.BadGzipFile, zstandard.ZstdError)

# A zstd block is at most 128 KB and may take 4 bytes, so one piece of input becomes at most 32 MB.
_COMPRESSED_PIECE = 1024
_SKIPPED_PIECE = 1 << 20


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
