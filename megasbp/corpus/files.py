"""Which files a corpus consists of, in which order, and of which kind.

Kinds by suffix: .jsonl, .ndjson and .json hold one JSON object per line, plain or as .gz or .zst; .parquet
holds one row per document; a .txt file is one document. A folder stands for all such files below it, sorted
by path, links to folders followed; files of other kinds and hidden files in it are passed over.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from megasbp.errors import InputError

_LINES = (".jsonl", ".ndjson", ".json")
_COMPRESSIONS = (".gz", ".zst")
_SUPPORTED = ".jsonl, .ndjson or .json (also with .gz or .zst), .parquet, .txt"


def corpus_files(paths: Sequence[Path]) -> list[Path]:
    """The files that `paths` stand for, folders opened, in reading order.

    Raises:
        InputError: no path is given, one is missing or of an unknown kind, a folder holds nothing readable,
            or a file comes twice.
    """
    if not paths:
        raise InputError("corpus.paths is empty; name at least one file or folder")
    files: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            found = _files_below(path)
            if not found:
                raise InputError(f"{path}: no readable file in this folder; supported are {_SUPPORTED}")
            files += found
        elif not path.exists():
            raise InputError(f"{path}: no such file or folder; correct corpus.paths")
        elif file_kind(path) is None:
            raise InputError(f"{path}: unknown kind of file; supported are {_SUPPORTED}")
        else:
            files.append(path)
    seen: set[Path] = set()
    for file in files:
        if file.resolve() in seen:
            raise InputError(f"{file}: comes twice in corpus.paths; name it once")
        seen.add(file.resolve())
        # Documents are named by their place, and names are stored as UTF-8.
        if not str(file).isprintable() and any("\ud800" <= letter <= "\udfff" for letter in str(file)):
            raise InputError(f"{str(file)!a}: the file's name is not UTF-8; rename it")
    return files


def file_kind(path: Path) -> str | None:
    """The kind of a file by its suffix: "lines", "parquet", "text", or None when unknown."""
    name = path.name.lower()
    for compression in _COMPRESSIONS:
        if name.endswith(compression):
            name = name.removesuffix(compression)
            return "lines" if name.endswith(_LINES) else None
    if name.endswith(_LINES):
        return "lines"
    return {".parquet": "parquet", ".txt": "text"}.get(os.path.splitext(name)[1])


def _files_below(folder: Path) -> list[Path]:
    found, opened = [], set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        # Links may lead back to a folder above them.
        if (real := os.path.realpath(parent)) in opened:
            folders.clear()
            continue
        opened.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(parent, name) for name in names if not name.startswith(".")]
    return sorted(path for path in found if file_kind(path) is not None)
