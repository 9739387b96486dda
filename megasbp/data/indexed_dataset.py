"""Tokenised documents on disk: Megatron's .bin/.idx with a NAME.json beside them that is published last.

NAME.json holds the dtype, the counts, the size and SHA-256 of both files, and the writer's own metadata
(tokenizer hash, special tokens, source). A dataset without it was not finished, or comes from another tool;
`describe_dataset` writes it for the latter. Where documents are not one sequence each, as Megatron's
--split-sentences writes them, it also holds the number of sequences; a document is its sequences joined.
"""

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import DTypeLike

import megasbp._C as core
from megasbp.data.following_hash import FollowingHash
from megasbp.data.native import named_errors, native_errors
from megasbp.errors import InputError
from megasbp.storage import (
    hash_file,
    hash_object,
    publish_json,
    publishing_file,
    read_json,
    remember_hash,
    sync_file,
)

_FORMAT = "megasbp indexed dataset 1"
_FIELDS = {"format", "dtype", "documents", "tokens", "files", "metadata"}
_SUFFIXES = (".bin", ".idx", ".json")
_SCAN_TOKENS = 1 << 22


def dataset_files(prefix: Path) -> tuple[Path, Path, Path]:
    """Paths of a dataset's .bin, .idx and .json; the suffix is added, so that the prefix may hold dots."""
    prefix = Path(prefix)
    bin_path, idx_path, json_path = (prefix.with_name(prefix.name + suffix) for suffix in _SUFFIXES)
    return bin_path, idx_path, json_path


def without_suffix(path: Path) -> Path:
    """The prefix of a dataset, also where one of its files is named."""
    return path.with_suffix("") if path.suffix in _SUFFIXES else path


class IndexedDataset:
    """A dataset opened for reading, memory-mapped; opening takes the same time for any size.

    Document i is the i-th 1-D array added; `bos doc eos` by this package's convention. Every access is
    checked: the entries it uses must lie inside .bin and end where the next one begins.

    Args:
        prefix: the dataset's path without .bin, .idx or .json.

    Raises:
        InputError: a file is missing, truncated, of another kind, or not of the size that NAME.json or the
            index announces; the message names the file and the mend.
    """

    def __init__(self, prefix: Path) -> None:
        self.prefix = Path(prefix)
        bin_path, idx_path, json_path = dataset_files(self.prefix)
        self._description = _read_description(self.prefix, json_path)
        self.native = _open_native(bin_path, idx_path, single="sequences" not in self._description)
        for path in (bin_path, idx_path):
            announced = self._description["files"][path.suffix]["bytes"]
            if path.stat().st_size != announced:
                raise InputError(
                    f"{path}: {path.stat().st_size} bytes, {json_path.name} announces {announced}; "
                    "restore the file or write the dataset again"
                )
        held = {
            "dtype": self.dtype.name,
            "documents": len(self),
            "sequences": self.native.sequences,
            "tokens": self.tokens,
        }
        announced = {"sequences": len(self), **self._description}
        for name, value in held.items():
            if announced[name] != value:
                raise InputError(
                    f"{idx_path}: {name} is {value}, {json_path.name} announces {announced[name]}; "
                    "restore the file or write the dataset again"
                )

    def __len__(self) -> int:
        """Number of documents."""
        return len(self.native)

    @property
    def tokens(self) -> int:
        """Number of tokens of all documents."""
        return int(self.native.tokens)

    @property
    def dtype(self) -> np.dtype:
        """Type in which tokens are stored."""
        return self.native.dtype

    @cached_property
    def lengths(self) -> np.ndarray:
        """int32 [documents], tokens of each document; a read-only view of the index.

        Where documents have several sequences it is computed, once, from the whole index.
        """
        if "sequences" not in self._description:
            return self.native.lengths
        with native_errors(str(self.prefix)):
            return self.native.document_lengths()

    @property
    def metadata(self) -> dict[str, Any]:
        """A copy of what the writer was given: tokenizer, bos, eos, source, ..."""
        return dict(self._description["metadata"])

    @property
    def fingerprint(self) -> str:
        """Hash of the contents and the metadata; equal datasets have equal fingerprints wherever they lie."""
        return hash_object(self._description)

    def document(self, document: int) -> np.ndarray:
        """Tokens of one document, 1-D of `dtype`; a read-only view of the file.

        A floating-point file, which Megatron's format allows, gives an int64 copy.

        Raises:
            IndexError: outside 0..len(self) - 1.
            ValueError: the index is damaged there, or a floating-point value is no token; names the file.
        """
        return self.native.document(document)

    def stream(self, start: int, count: int) -> np.ndarray:
        """Tokens [start, start + count) of all documents one after another; a view or copy as `document`.

        Raises:
            IndexError: not within 0..tokens.
            ValueError: a floating-point value is no token; names the file.
        """
        return self.native.stream(start, count)

    def special_token(self, name: str) -> int:
        """A special token's id from the metadata ("bos", "eos").

        Raises:
            InputError: the metadata do not name it.
        """
        token = self._description["metadata"].get(name)
        if not isinstance(token, int):
            raise InputError(
                f"{dataset_files(self.prefix)[2]}: metadata name no {name!r} token; "
                "write the dataset again with one"
            )
        return token

    def verify(self, vocabulary_size: int | None = None) -> None:
        """Reads everything: both content hashes, every index entry and, given its size, every token.

        Raises:
            InputError: at the first thing that is not as it should be.
        """
        for path in dataset_files(self.prefix)[:2]:
            if hash_file(path) != self._description["files"][path.suffix]["sha256"]:
                raise InputError(
                    f"{path}: SHA-256 differs from {self.prefix.name}.json; "
                    "restore the file or write the dataset again"
                )
        with native_errors(str(self.prefix)):
            single = self.native.verify()
        if single != ("sequences" not in self._description):
            raise InputError(
                f"{self.prefix}.json: {'announces' if single else 'does not announce'} documents of several "
                "sequences, unlike the index; restore the file or describe the dataset again"
            )
        if vocabulary_size is not None:
            self._verify_tokens(vocabulary_size)

    def _verify_tokens(self, vocabulary_size: int) -> None:
        for start in range(0, self.tokens, _SCAN_TOKENS):
            with native_errors(str(self.prefix)):
                block = self.stream(start, min(_SCAN_TOKENS, self.tokens - start))
            outside = (block < 0) | (block >= vocabulary_size)
            if outside.any():
                first = int(outside.argmax())
                raise InputError(
                    f"{self.prefix}.bin: token {start + first} is {block[first]}, the vocabulary has "
                    f"{vocabulary_size}; use the tokenizer it was written with"
                )


class IndexedDatasetWriter:
    """Writes a dataset document by document; a context manager that publishes it on a clean exit only.

    Until then, and after any failure, an existing dataset of the same name stays as it was. Memory use does
    not grow with the number of documents.

    Args:
        prefix: path without suffix; its folder is made.
        dtype: uint8, int8, int16, uint16, int32 or int64; float32 and float64 exist for other readers' sake.
        metadata: JSON-serialisable, kept in NAME.json: tokenizer hash, bos, eos, source.

    Raises:
        InputError: the dtype, or a token that does not fit it.
        OSError: a failed write, with errno and the file's name.
    """

    def __init__(self, prefix: Path, dtype: DTypeLike, *, metadata: Mapping[str, Any] | None = None) -> None:
        self.prefix = Path(prefix)
        self._dtype = np.dtype(dtype)
        self._metadata = dict(metadata or {})
        self._publication = ExitStack()
        self._place = str(self.prefix)

    def __enter__(self) -> Self:
        bin_path, idx_path, json_path = dataset_files(self.prefix)
        # Left in the opposite order: .json is published last.
        with ExitStack() as stack:
            self._json_partial = stack.enter_context(publishing_file(json_path))
            self._bin_partial = stack.enter_context(publishing_file(bin_path))
            self._idx_partial = stack.enter_context(publishing_file(idx_path))
            self._hashes = {
                path: stack.enter_context(FollowingHash(path))
                for path in (self._bin_partial, self._idx_partial)
            }
            with native_errors(str(self.prefix)):
                self._native = core.IndexedDatasetWriter(
                    os.fspath(self._bin_partial),
                    os.fspath(self._idx_partial),
                    self._dtype,
                    *(following.follow for following in self._hashes.values()),
                )
            self._publication = stack.pop_all()
        return self

    @property
    def documents(self) -> int:
        """Documents added so far."""
        return self._native.documents

    @property
    def tokens(self) -> int:
        """Tokens added so far."""
        return self._native.tokens

    def add_document(self, tokens: np.ndarray, sequence_lengths: np.ndarray | None = None) -> None:
        """Appends one document.

        Args:
            tokens: integers [n], 0 <= n < 2**31, each within the dtype.
            sequence_lengths: integers [sequences] of sum n, the document's parts as Megatron has them; one
                sequence by default.
        """
        arrays = [self._integers(tokens, "the document's tokens")]
        if sequence_lengths is not None:
            arrays.append(self._integers(sequence_lengths, "its sequence lengths"))
        with native_errors(self._place):
            self._native.add_document(*arrays)

    def add_documents(self, tokens: np.ndarray, lengths: np.ndarray) -> None:
        """Appends many documents at once, each of one sequence: much faster where they are short.

        Args:
            tokens: integers [n], the documents one after another.
            lengths: integers [documents], each in 0..2**31 - 1, of sum n.
        """
        arrays = (self._integers(tokens, "their tokens"), self._integers(lengths, "their lengths"))
        with native_errors(self._place):
            self._native.add_documents(*arrays)

    def _integers(self, values: np.ndarray, what: str) -> np.ndarray:
        values = np.asarray(values)
        if values.ndim != 1 or (values.size and values.dtype.kind not in "iu"):
            raise InputError(
                f"{self.prefix}: document {self.documents} and on: {what} are {values.dtype} of shape "
                f"{list(values.shape)}, must be integers of one dimension"
            )
        return np.ascontiguousarray(values, dtype=np.int64)

    def add_framed_documents(self, tokens: np.ndarray, bounds: np.ndarray, first: int, last: int) -> None:
        """Appends documents `first`, tokens[bounds[i] : bounds[i + 1]], `last`, without a Python loop.

        Args:
            tokens: uint32 [n].
            bounds: int64 [documents + 1], rising within 0..n.
            first, last: tokens before and after every document.

        Raises:
            InputError: a token does not fit the dtype; nothing of the batch is written.
        """
        with native_errors(str(self.prefix)):
            self._native.add_framed(
                np.ascontiguousarray(tokens, np.uint32), np.ascontiguousarray(bounds, np.int64), first, last
            )

    def copy_documents(self, source: IndexedDataset, documents: np.ndarray) -> None:
        """Appends documents of another dataset in the order given, byte for byte, each as one sequence.

        Args:
            source: of the same dtype.
            documents: integers [n], its documents; each any number of times.

        Raises:
            InputError: another dtype, a document that the source does not have, or a damaged source.
        """
        with native_errors(str(source.prefix)):
            self._native.add_copies(source.native, self._integers(documents, "the copied documents' numbers"))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._publication as publication:
            if kind is not None:
                publication.__exit__(kind, error, traceback)
                return
            self._native.finish()
            paths = {".bin": self._bin_partial, ".idx": self._idx_partial}
            sequences = None if self._native.single else self._native.sequences
            # Hashing needs the processor and syncing the disk, so they share the time.
            with ThreadPoolExecutor(len(paths)) as pool:
                synced = [pool.submit(_sync, path) for path in paths.values()]
                hashes = {
                    suffix: self._hashes[path].finish(path.stat().st_size) for suffix, path in paths.items()
                }
                description = dataset_description(
                    paths, hashes, self._dtype, self.documents, self.tokens, sequences, self._metadata
                )
                for sync in synced:
                    sync.result()
            json_path = dataset_files(self.prefix)[2]
            with named_errors(json_path):
                publish_json(self._json_partial, description)
            # All bytes are on disk. Without its .json a dataset counts as unfinished, so a kill between the
            # following renames cannot leave old and new files that pass for one dataset.
            if json_path.exists():
                json_path.unlink()
                sync_file(json_path.parent)


def describe_dataset(prefix: Path, metadata: Mapping[str, Any]) -> None:
    """Writes NAME.json for .bin/.idx files of another tool (Megatron-LM), after reading all of both.

    Raises:
        InputError: the files are damaged.
    """
    bin_path, idx_path, json_path = dataset_files(prefix)
    native = _open_native(bin_path, idx_path, single=False)
    with native_errors(str(prefix)):
        sequences = None if native.verify() else native.sequences
    paths = {".bin": bin_path, ".idx": idx_path}
    hashes = {suffix: hash_file(path) for suffix, path in paths.items()}
    description = dataset_description(
        paths, hashes, native.dtype, len(native), native.tokens, sequences, metadata
    )
    publish_json(json_path, description)


def _sync(path: Path) -> None:
    with named_errors(path):
        sync_file(path)


def dataset_description(
    paths: Mapping[str, Path],
    hashes: Mapping[str, str],
    dtype: np.dtype,
    documents: int,
    tokens: int,
    sequences: int | None,
    metadata: Mapping[str, Any],
) -> dict[str, Any]:
    """What NAME.json holds. `publish_manifest` will not read the files for their hashes again.

    Args:
        paths: ".bin" and ".idx" -> the file.
        hashes: ".bin" and ".idx" -> its SHA-256.
        sequences: None where each document is one.
    """
    for suffix, path in paths.items():
        remember_hash(path, hashes[suffix])
    return {
        "format": _FORMAT,
        "dtype": dtype.name,
        "documents": documents,
        "tokens": tokens,
        **({} if sequences is None else {"sequences": sequences}),
        "files": {
            suffix: {"bytes": path.stat().st_size, "sha256": hashes[suffix]} for suffix, path in paths.items()
        },
        "metadata": dict(metadata),
    }


def _open_native(bin_path: Path, idx_path: Path, *, single: bool) -> Any:
    try:
        with native_errors(str(idx_path)):
            return core.IndexedDataset(os.fspath(bin_path), os.fspath(idx_path), single)
    except FileNotFoundError as error:
        raise InputError(f"{error.filename}: no such file; restore it or write the dataset again") from None


def _read_description(prefix: Path, json_path: Path) -> dict[str, Any]:
    if not json_path.is_file():
        if prefix.suffix in _SUFFIXES and dataset_files(prefix.with_suffix(""))[0].is_file():
            raise InputError(f"{prefix}: is one file of a dataset; give the prefix {prefix.with_suffix('')}")
        raise InputError(
            f"{json_path}: no such file, so {prefix} is no finished dataset; write it again, "
            "or describe files of another tool with tools/inspect_dataset.py --describe"
        )
    description = read_json(json_path)
    if not _is_description(description):
        raise InputError(f"{json_path}: not a description of format {_FORMAT!r}; write the dataset again")
    return description


def _is_description(description: Any) -> bool:
    """Whether JSON has the fields that the format names; who edits the file by hand may lose one."""
    if not isinstance(description, dict) or description.get("format") != _FORMAT:
        return False
    if not description.keys() >= _FIELDS or not isinstance(description["metadata"], dict):
        return False
    files = description["files"]
    entries = [files.get(suffix) for suffix in (".bin", ".idx")] if isinstance(files, dict) else [None]
    return all(isinstance(entry, dict) and entry.keys() >= {"bytes", "sha256"} for entry in entries)
