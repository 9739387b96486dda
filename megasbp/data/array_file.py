"""Arrays of plans: .npy files written piece by piece, and read memory-mapped."""

from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from megasbp.data.native import named_errors
from megasbp.errors import InputError


class ArrayFile:
    """Writes a one-dimensional int64 .npy file piece by piece; a context manager.

    NumPy pads the header so that the first axis can grow without moving the data; the header is written again
    with the final length on a clean exit.

    Raises:
        OSError: a failed write, with errno and the file's name.
    """

    def __init__(self, path: Path) -> None:
        self._path = Path(path)
        self._length = 0

    def __enter__(self) -> Self:
        with named_errors(self._path):
            self._file = open(self._path, "wb")
            self._data_offset = self._write_header()
        return self

    def append(self, values: np.ndarray) -> None:
        """Appends int64 values."""
        with named_errors(self._path):
            self._file.write(np.ascontiguousarray(values, dtype="<i8").data)
        self._length += len(values)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with named_errors(self._path), self._file:
            if kind is None:
                self._file.seek(0)
                end = self._write_header()
                assert end == self._data_offset, "the header's length changed with the array's"

    def _write_header(self) -> int:
        header = {"descr": "<i8", "fortran_order": False, "shape": (self._length,)}
        np.lib.format.write_array_header_1_0(self._file, header)
        return self._file.tell()


def read_array(path: Path) -> np.ndarray:
    """A memory-mapped int64 [n] array; the C++ core checks at each access what it holds.

    Raises:
        InputError: the file is damaged, or of another type or shape.
    """
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError:
        raise
    except Exception as error:  # NumPy reads the header as Python, and a damaged one fails in many ways.
        raise InputError(f"{path}: not an array ({error}); delete its folder to have it made again") from None
    if values.ndim != 1 or values.dtype != np.int64:
        raise InputError(
            f"{path}: {values.dtype} {list(values.shape)}, must be int64 [n]; "
            "delete its folder to have it made again"
        )
    return values
