"""Vectors in one or several .npy files, read as one matrix of which memory holds what is asked for."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from megasbp.errors import InputError
from megasbp.storage import hash_file, hash_object


class Vectors:
    """The rows of several files, one after the other. Indexed by a slice or an int array, as a matrix is.

    Files are mapped while they are read from, and not before: there may be more of them than a process may
    have open.

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
    """A memory map of a .npy file; an empty array is read, since nothing cannot be mapped."""
    try:
        # A plain array over the map: np.memmap slices several times as slowly.
        return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except ValueError:
        return np.load(path, allow_pickle=False)


def _read_shape(path: Path) -> tuple[int, int]:
    try:
        vectors = load_array(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; embed the texts again") from None
    except (ValueError, EOFError) as error:
        raise InputError(f"{path}: not an array ({error}); embed the texts again") from None
    if vectors.ndim != 2 or vectors.dtype != np.float32 or not vectors.flags.c_contiguous:
        raise InputError(f"{path}: {vectors.dtype} {vectors.shape}, must be a float32 matrix stored by rows")
    return vectors.shape[0], vectors.shape[1]
