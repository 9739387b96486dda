"""Many indexed datasets become one: their token files one after another, their index tables joined.

Memory does not grow with the datasets: tables are read and written block by block, token files are copied by
the kernel, holes stay holes. All arithmetic is on Python's integers or int64.
"""

import errno
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from megasbp.data.indexed_dataset import IndexedDataset, dataset_description, dataset_files
from megasbp.errors import InputError
from megasbp.storage import hash_file, publish_json, publishing_file, require_free_space, sync_file

# Metadata that must be the same in all: what the tokens mean.
_SAME = ("tokenizer", "bos", "eos", "sep")
# magic, version, dtype code, sequences, document bounds; see csrc/indexed_dataset.h.
_HEADER = struct.Struct("<9sQBQQ")
_MAGIC = b"MMIDIDX\x00\x00"
_ENTRIES_AT_ONCE = 1 << 20
_COPY_BYTES = 1 << 30
_READ_BYTES = 1 << 20


@dataclass(frozen=True)
class Index:
    """Where the tables of an .idx file lie.

    Attributes:
        path: the file.
        code: of the dtype.
        sequences, bounds: entries of the tables.
    """

    path: Path
    code: int
    sequences: int
    bounds: int

    @classmethod
    def read(cls, path: Path) -> "Index":
        """Reads the header."""
        with open(path, "rb") as file:
            magic, version, code, sequences, bounds = _HEADER.unpack(file.read(_HEADER.size))
        assert magic == _MAGIC and version == 1
        return cls(path, code, sequences, bounds)

    def lengths(self) -> Iterator[np.ndarray]:
        """int32 tokens of each sequence, in blocks."""
        return self._table(_HEADER.size, self.sequences, np.dtype("<i4"))

    def pointers(self) -> Iterator[np.ndarray]:
        """int64 first byte of each sequence, in blocks."""
        return self._table(_HEADER.size + 4 * self.sequences, self.sequences, np.dtype("<i8"))

    def document_bounds(self) -> Iterator[np.ndarray]:
        """int64 first sequence of each document, and the number of sequences, in blocks."""
        return self._table(_HEADER.size + 12 * self.sequences, self.bounds, np.dtype("<i8"))

    def _table(self, start: int, entries: int, dtype: np.dtype) -> Iterator[np.ndarray]:
        with open(self.path, "rb") as file:
            file.seek(start)
            while entries:
                count = min(entries, _ENTRIES_AT_ONCE)
                block = np.frombuffer(file.read(count * dtype.itemsize), dtype)
                if len(block) != count:
                    raise InputError(f"{self.path}: ends inside its tables; restore the file")
                yield block
                entries -= count


def merge_datasets(
    prefixes: Sequence[Path], output: Path, progress: Callable[[int, int], None] = lambda done, total: None
) -> None:
    """Writes the documents of all datasets, in the order given, as one dataset.

    The result is byte for byte what the writer makes of the same documents. Metadata are those of the first
    dataset; `source` is a list when the sources differ.

    Args:
        prefixes: paths without suffix.
        progress: called with bytes of tokens copied and of all.

    Raises:
        InputError: no dataset, one is damaged, they differ in dtype, tokenizer or special tokens, the output
            is one of them, or the disk is too small.
    """
    if not prefixes:
        raise InputError("no dataset to merge; name at least one prefix")
    datasets = [IndexedDataset(prefix) for prefix in prefixes]
    for dataset in datasets:
        _require_alike(datasets[0], dataset)
        if dataset.prefix.resolve() == output.resolve():
            raise InputError(f"{output}: is one of the datasets to be merged; choose another output")
    documents = sum(map(len, datasets))
    tokens = sum(dataset.tokens for dataset in datasets)
    item = datasets[0].dtype.itemsize
    require_free_space(output.parent, tokens * item + 20 * documents)
    bin_path, idx_path, json_path = dataset_files(output)
    # Left in the opposite order: .json is published last.
    with ExitStack() as stack:
        json_partial = stack.enter_context(publishing_file(json_path))
        bin_partial = stack.enter_context(publishing_file(bin_path))
        idx_partial = stack.enter_context(publishing_file(idx_path))
        bins = [dataset_files(dataset.prefix)[0] for dataset in datasets]
        join_files(bins, bin_partial, progress)
        indexes = [Index.read(dataset_files(each.prefix)[1]) for each in datasets]
        join_indexes(indexes, item, idx_partial)
        single = all(dataset.native.single for dataset in datasets)
        paths = {".bin": bin_partial, ".idx": idx_partial}
        description = dataset_description(
            paths,
            {suffix: hash_file(path) for suffix, path in paths.items()},
            datasets[0].dtype,
            documents,
            tokens,
            None if single else sum(index.sequences for index in indexes),
            _metadata(datasets),
        )
        publish_json(json_partial, description)
        # As in IndexedDatasetWriter: old and new files never pass for one dataset.
        if json_path.exists():
            json_path.unlink()
            sync_file(json_path.parent)


def join_indexes(indexes: Sequence[Index], item: int, output: Path) -> None:
    """Writes one index for token files that lie one after another.

    Args:
        indexes: in that order, of one dtype.
        item: bytes of a token.

    Raises:
        InputError: pointers of an index do not follow its lengths.
    """
    sequences = sum(index.sequences for index in indexes)
    bounds = sum(index.bounds - 1 for index in indexes) + 1
    with open(output, "wb") as file:
        file.write(_HEADER.pack(_MAGIC, 1, indexes[0].code, sequences, bounds))
        for index in indexes:
            for lengths in index.lengths():
                _write_table(file, lengths)
        first_byte = 0
        for index in indexes:
            first_byte = _write_pointers(file, index, item, first_byte)
        first_sequence = 0
        for index in indexes:
            # The last bound of one is the first of the next.
            remaining = index.bounds - 1
            for block in index.document_bounds():
                _write_table(file, shifted(block[:remaining], first_sequence))
                remaining -= min(remaining, len(block))
            first_sequence += index.sequences
        file.write(struct.pack("<q", first_sequence))


def _write_pointers(file: BinaryIO, index: Index, item: int, first_byte: int) -> int:
    """Writes an index's pointers moved by `first_byte`; returns where the next index's begin."""
    end = 0
    for lengths, pointers in zip(index.lengths(), index.pointers(), strict=True):
        expected, end = pointers_of(lengths, item, end)
        if not np.array_equal(pointers, expected):
            raise InputError(
                f"{index.path}: damaged index, a sequence does not start where the one before it ends; "
                "restore the file or write the dataset again"
            )
        _write_table(file, shifted(pointers, first_byte))
    return first_byte + end


def _write_table(file: BinaryIO, block: np.ndarray) -> None:
    """Writes a block of a table; one of zeros, which is not the end of a file here, becomes a hole."""
    if block.any():
        file.write(block.data)
    else:
        file.seek(block.nbytes, os.SEEK_CUR)


def pointers_of(lengths: np.ndarray, item: int, start: int) -> tuple[np.ndarray, int]:
    """First byte of each sequence, int64 [n], and the byte after the last.

    Args:
        lengths: int32 [n], in tokens.
        item: bytes of a token.
        start: first byte of the first sequence.
    """
    ends = np.cumsum(lengths, dtype=np.int64) * item + start
    pointers = np.concatenate([[start], ends[:-1]])[: len(lengths)].astype("<i8")
    return pointers, int(ends[-1]) if len(lengths) else start


def shifted(values: np.ndarray, offset: int) -> np.ndarray:
    """int64 values + offset, both beyond 2**32 if need be."""
    return (values.astype("<i8") + np.int64(offset)).astype("<i8")


def join_files(
    paths: Sequence[Path], output: Path, progress: Callable[[int, int], None] = lambda done, total: None
) -> None:
    """Writes files one after another; holes are left as holes.

    Raises:
        OSError: a failed read or write, with the file's name.
    """
    total = sum(path.stat().st_size for path in paths)
    done = 0
    with open(output, "wb") as target:
        for path in paths:
            size = path.stat().st_size
            with open(path, "rb") as source:
                for start, end in _extents(source.fileno(), size):
                    _copy(source, target, start, end, done, lambda copied: progress(copied, total))
            done += size
            progress(done, total)
        target.truncate(total)


def _extents(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    """Ranges of a file that hold data, by SEEK_DATA; all of it where the file system has no holes."""
    position = 0
    while position < size:
        try:
            start = os.lseek(descriptor, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole is left
                return
            raise
        position = os.lseek(descriptor, start, os.SEEK_HOLE)
        yield start, position


def _copy(
    source: BinaryIO, target: BinaryIO, start: int, end: int, offset: int, copied: Callable[[int], None]
) -> None:
    """Copies source[start:end) to target from byte offset + start on, in the kernel where it can."""
    in_kernel = True
    position = start
    while position < end:
        count = min(end - position, _COPY_BYTES)
        if in_kernel:
            try:
                moved = os.copy_file_range(
                    source.fileno(), target.fileno(), count, position, offset + position
                )
            except OSError as error:
                # Across file systems, or where the file system knows no such call.
                if error.errno not in {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}:
                    raise OSError(error.errno, error.strerror, target.name) from error
                in_kernel = False
                continue
        else:
            block = os.pread(source.fileno(), min(count, _READ_BYTES), position)
            try:
                moved = os.pwrite(target.fileno(), block, offset + position)
            except OSError as error:
                raise OSError(error.errno, error.strerror, target.name) from error
        if moved == 0:
            raise InputError(f"{source.name}: became shorter while it was read; restore the file")
        position += moved
        copied(offset + position)


def _require_alike(first: IndexedDataset, other: IndexedDataset) -> None:
    if other.dtype != first.dtype:
        raise InputError(
            f"{other.prefix}: tokens of {other.dtype}, those of {first.prefix} are {first.dtype}; merge "
            "datasets of one dtype"
        )
    for name in _SAME:
        if other.metadata.get(name) != first.metadata.get(name):
            raise InputError(
                f"{other.prefix}: {name} {other.metadata.get(name)}, that of {first.prefix} is "
                f"{first.metadata.get(name)}; merge datasets of one tokenizer"
            )


def _metadata(datasets: Sequence[IndexedDataset]) -> dict[str, Any]:
    sources: list[Any] = []
    for dataset in datasets:
        source = dataset.metadata.get("source")
        for each in source if isinstance(source, list) else [source]:
            if each not in sources:
                sources.append(each)
    metadata = datasets[0].metadata
    if len(sources) > 1:
        metadata["source"] = sources
    return metadata
