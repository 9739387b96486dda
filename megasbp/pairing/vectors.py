"""Vectors in one or several .npy files, read as one matrix of which memory holds what is asked for."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from megasbp import _C
from megasbp.errors import InputError
from megasbp.storage import hash_file, hash_object

# Version of a .npy file -> what reads the rest of its header.
_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


class Vectors:
    """The rows of several files, one after the other. Indexed by a slice or an int array, as a matrix is.

    Files are mapped while they are read from, and not before.

    Args:
        paths: NAME.npy, each float32 [n_i, d].
        digest: content hash of all of them, where it is known; else the files are hashed when it is asked
            for.

    Raises:
        InputError: a file is missing or no .npy file, or not a float32 matrix of the others' width.
    """

    def __init__(self, paths: Sequence[Path], digest: str | None = None) -> None:
        if not paths:
            raise ValueError("vectors need at least one file")
        self.paths = tuple(Path(path) for path in paths)
        shapes = [_read_shape(path) for path in self.paths]
        for path, shape in zip(self.paths, shapes, strict=True):
            if shape[1] != shapes[0][1]:
                raise InputError(
                    f"{path}: {shape[1]} wide, {self.paths[0]} is {shapes[0][1]}; embed both alike"
                )
        self._digest = digest
        self.bounds = np.concatenate([[0], np.cumsum([rows for rows, _ in shapes])]).astype(np.int64)
        self.shape = (int(self.bounds[-1]), shapes[0][1])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        """float32 [r, d], C-contiguous: rows [start, stop), or those of an int array in its order."""
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            assert step == 1
            pieces = [piece for _, piece in self.pieces(start, stop)]
            empty = np.empty((0, self.shape[1]), np.float32)
            return pieces[0] if len(pieces) == 1 else np.concatenate([empty, *pieces])
        rows = np.asarray(rows, dtype=np.int64)
        taken = np.empty((len(rows), self.shape[1]), np.float32)
        files = self.file_of(rows)
        for file in np.unique(files):
            here = np.flatnonzero(files == file)
            taken[here] = self.open(file)[rows[here] - self.bounds[file]]
        return taken

    def pieces(self, start: int, stop: int) -> Iterator[tuple[int, np.ndarray]]:
        """Rows [start, stop) file by file: the first one's number, and a map of them."""
        for file in range(len(self.paths)):
            first, last = max(start, self.bounds[file]), min(stop, self.bounds[file + 1])
            if first < last:
                yield int(first), self.open(file)[first - self.bounds[file] : last - self.bounds[file]]

    def file_of(self, rows: np.ndarray) -> np.ndarray:
        """int64: position in `paths` of the file that holds each row."""
        if len(rows) and not (rows.min() >= 0 and rows.max() < len(self)):
            raise IndexError(f"rows {rows.min()} to {rows.max()} are not all inside [0, {len(self)})")
        return np.searchsorted(self.bounds, rows, side="right") - 1

    def open(self, file: int) -> np.ndarray:
        """A map of one file's rows."""
        return load_array(self.paths[file])

    @cached_property
    def digest(self) -> str:
        """Content hash of all rows."""
        return self._digest or hash_object([hash_file(path) for path in self.paths])


def load_array(path: Path) -> np.ndarray:
    """A read-only map of a .npy file.

    The map keeps no descriptor open, as one of numpy's does: a search over millions of documents holds more
    maps than a process may have open files. The kernel allows some 65,000 of them (vm.max_map_count).

    Raises:
        InputError: the file holds no array, or only a part of it.
        OSError: it cannot be opened or mapped; with its name.
    """
    content = _C.map_file(str(path))
    try:
        with open(path, "rb") as file:
            shape, by_columns, dtype = _HEADERS[npy.read_magic(file)](file)
            start = file.tell()
        if dtype.hasobject:
            raise ValueError("it holds Python objects")
        return np.ndarray(shape, dtype, content, start, order="F" if by_columns else "C")
    except OSError:
        raise
    except Exception as error:  # NumPy reads the header as Python, and a damaged one fails in many ways.
        raise InputError(f"{path}: not an array ({error}); have it made again") from None


def _read_shape(path: Path) -> tuple[int, int]:
    try:
        vectors = load_array(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; embed the texts again") from None
    if vectors.ndim != 2 or vectors.dtype != np.float32 or not vectors.flags.c_contiguous:
        raise InputError(f"{path}: {vectors.dtype} {vectors.shape}, must be a float32 matrix stored by rows")
    return vectors.shape[0], vectors.shape[1]
