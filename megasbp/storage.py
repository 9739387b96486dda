"""Files that exist only when they are whole: atomic publication, manifests, hashes.

A published path appears by one rename, after its bytes and then its folder entry are on disk; a kill at any
moment leaves either the old state or the new one, and at most a `*.partial-*` leftover that the next run
removes.
"""

import ctypes
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from stat import S_ISREG
from typing import Any

from megasbp.errors import InputError

MANIFEST_NAME = "manifest.json"
_PARTIAL = ".partial-"
# Of renameat2(2), Linux.
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_folder(folder: Path) -> str:
    """Hash of the names and bytes of all files below a folder, hexadecimal. A file is read once a process."""
    files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    return hash_object({path.relative_to(folder).as_posix(): hash_once(path) for path in files})


def hash_once(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal. An unchanged file is read once a process."""
    return _hash_of(path, _identity(path))


@cache
def _hash_of(path: Path, identity: tuple[int, ...]) -> str:
    return hash_file(path)


def remember_hash(path: Path, digest: str) -> None:
    """Takes note of the SHA-256 of a file just written; `publish_manifest` does not read it again."""
    _written_hashes[_identity(path)] = digest


# Identity of a file as it was hashed -> SHA-256.
_written_hashes: dict[tuple[int, ...], str] = {}


def _identity(path: Path) -> tuple[int, ...]:
    status = os.stat(path)
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def hash_object(value: Any) -> str:
    """SHA-256 of a JSON-serialisable value in canonical form (sorted keys, no spaces), hexadecimal."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def sync_file(path: Path) -> None:
    """Forces a file's bytes, or a folder's entries, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _partial_path(path: Path) -> Path:
    return path.with_name(f"{path.name}{_PARTIAL}{os.getpid()}")


def remove_partials(folder: Path) -> list[Path]:
    """Removes what killed writers left directly inside `folder`; returns what was removed."""
    leftovers = sorted(folder.glob(f"*{_PARTIAL}*")) if folder.is_dir() else []
    for leftover in leftovers:
        if leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            leftover.unlink()
    return leftovers


@contextmanager
def publishing_file(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; what was written there is published when the block ends.

    On any exception the temporary file is removed and an existing `path` is left as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial_path(path)
    try:
        yield partial
        sync_file(partial)
        os.replace(partial, path)
        sync_file(path.parent)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _exchange(first: Path, second: Path) -> None:
    """Swaps two folders by one system call: a folder that is not empty cannot be replaced by rename."""
    libc = ctypes.CDLL(None, use_errno=True)
    renameat2 = getattr(libc, "renameat2", None)
    arguments = (_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE)
    if renameat2 is None or renameat2(*arguments) != 0:
        code = ctypes.get_errno() if renameat2 is not None else errno.ENOSYS
        if code in {errno.ENOSYS, errno.EINVAL}:
            raise InputError(f"{second}: exists, and this file system cannot swap folders; remove it first")
        raise OSError(code, os.strerror(code), str(second))


@contextmanager
def publishing_folder(path: Path) -> Iterator[Path]:
    """Yields a temporary folder beside `path`; published whole when the block ends.

    An existing `path` is swapped for the new folder by one system call. On any exception the temporary folder
    is removed and the existing one is left as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial_path(path)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        for entry in sorted(partial.rglob("*")):
            sync_file(entry)
        sync_file(partial)
        if path.exists():
            _exchange(partial, path)
            shutil.rmtree(partial)
        else:
            os.rename(partial, path)
        sync_file(path.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def publish_bytes(path: Path, data: bytes) -> None:
    """Writes `data` to `path` atomically."""
    with publishing_file(path) as partial:
        partial.write_bytes(data)


def publish_json(path: Path, value: Any) -> None:
    """Writes a JSON file atomically; equal values give equal bytes (sorted keys, final newline)."""
    publish_bytes(path, _json_bytes(value))


def _json_bytes(value: Any) -> bytes:
    return (json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False) + "\n").encode()


def read_json(path: Path) -> Any:
    """Reads a JSON file.

    Raises:
        InputError: the file is missing or not JSON; the message names it.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: not valid JSON ({error}); restore it or delete it to have it made again"
        ) from None


@dataclass(frozen=True)
class Manifest:
    """What a stage's folder holds and what it was made from.

    Attributes:
        stage: the stage's name.
        inputs: name of each input -> content hash (another manifest's `digest`, or a file's SHA-256).
        settings: the configuration the stage depends on, JSON-serialisable.
        files: relative path -> {"bytes": size, "sha256": hash}; no hash where the folder does not last.
        facts: small results that later stages read (counts, chosen values), JSON-serialisable.
    """

    stage: str
    inputs: dict[str, str]
    settings: dict[str, Any]
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Hash of what the outputs depend on: stage, inputs, settings."""
        return hash_object({"stage": self.stage, "inputs": self.inputs, "settings": self.settings})

    def difference(self, wanted: "Manifest") -> str:
        """The first thing by which the keys differ, as "NAME OLD, now NEW"; they must differ."""
        if self.stage != wanted.stage:
            return f"{self.stage}, now {wanted.stage}"
        for old, new in ((self.inputs, wanted.inputs), (self.settings, wanted.settings)):
            for name in sorted(old.keys() | new.keys()):
                if old.get(name) != new.get(name):
                    return f"{name} {old.get(name)}, now {new.get(name)}"
        raise AssertionError("the keys differ, so one of their parts does")

    @property
    def digest(self) -> str:
        """Hash of what the folder holds; what dependants record as their input."""
        return hash_object({"stage": self.stage, "files": self.files, "facts": self.facts})


def publish_manifest(
    folder: Path,
    stage: str,
    inputs: Mapping[str, str],
    settings: Mapping[str, Any],
    facts: Mapping[str, Any] | None = None,
    ignore: Iterable[str] = (),
    lasting: bool = True,
) -> Manifest:
    """Hashes every file below `folder` and publishes the manifest, last of all.

    What a folder inside has published is taken from its own manifest, not read again: it may be terabytes.

    Args:
        ignore: glob patterns, relative to `folder`, of files that are not results (logs with times in them).
        lasting: False for a folder that this run alone reads and removes: only the sizes are noted, and
            nothing is forced to disk.
    """
    folder = Path(folder)
    patterns = tuple(ignore)
    known = _hashes_of_manifests(folder) if lasting else {}
    files = {}
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        skipped = path.is_dir() or _PARTIAL in str(relative) or str(relative) == MANIFEST_NAME
        if skipped or any(relative.match(pattern) for pattern in patterns):
            continue
        size = path.stat().st_size
        entry = known.get(path) if lasting else {"bytes": size}
        if entry is None or entry["bytes"] != size:
            # Each is used once: later on the file may have been changed within the clock's step.
            digest = _written_hashes.pop(_identity(path), None) or hash_file(path)
            entry = {"bytes": size, "sha256": digest}
        files[relative.as_posix()] = entry
    # Through JSON and back, so that a manifest just written equals the same manifest read again.
    body = json.loads(
        json.dumps(asdict(Manifest(stage, dict(inputs), dict(settings), files, dict(facts or {}))))
    )
    if lasting:
        publish_json(folder / MANIFEST_NAME, body)
    else:
        (folder / MANIFEST_NAME).write_bytes(_json_bytes(body))
    return Manifest(**body)


def _hashes_of_manifests(folder: Path) -> dict[Path, dict[str, Any]]:
    """What the manifests of folders inside `folder` say of their files."""
    entries: dict[Path, dict[str, Any]] = {}
    for path in folder.rglob(f"*/{MANIFEST_NAME}"):
        manifest = read_manifest(path.parent, check="none")
        if manifest is not None:
            entries |= {path.parent / name: entry for name, entry in manifest.files.items()}
    return entries


def read_manifest(folder: Path, check: str = "sizes") -> Manifest | None:
    """The manifest of a folder, or None when the folder has none or does not hold what the manifest says.

    A name that leads out of the folder is nothing it holds; what lies there is not opened.

    Args:
        check: "sizes" compares file sizes, "hashes" also the contents, "none" neither.
    """
    manifest = _parsed_manifest(Path(folder) / MANIFEST_NAME)
    if manifest is None or check == "none":
        return manifest
    whole = all(_holds(Path(folder), name, entry, check) for name, entry in manifest.files.items())
    return manifest if whole else None


def _parsed_manifest(path: Path) -> Manifest | None:
    if not path.is_file():
        return None
    try:
        manifest = Manifest(**json.loads(path.read_text(encoding="utf-8")))
    except (json.JSONDecodeError, TypeError, UnicodeDecodeError):
        return None
    if not isinstance(manifest.files, dict) or not isinstance(manifest.settings, dict):
        return None
    return manifest if all(isinstance(entry, dict) for entry in manifest.files.values()) else None


def _holds(folder: Path, name: str, entry: dict[str, Any], check: str) -> bool:
    if Path(name).is_absolute() or ".." in Path(name).parts:
        return False
    file = folder / name
    if not file.is_file() or file.stat().st_size != entry.get("bytes"):
        return False
    return check != "hashes" or hash_file(file) == entry.get("sha256")


def bytes_below(folder: Path) -> int:
    """Bytes of all files below a folder, or of a file; 0 for nothing. Others may remove files meanwhile."""
    total = 0
    for path in (folder, *Path(folder).rglob("*")):
        with suppress(FileNotFoundError):
            status = os.lstat(path)
            total += status.st_size if S_ISREG(status.st_mode) else 0
    return total


def require_free_space(folder: Path, needed: int, beside_what_is_there: bool = False) -> None:
    """Refuses to start work that cannot fit.

    Args:
        needed: bytes the work is estimated to write.
        beside_what_is_there: the files below `folder` are of the same work, and count as written.

    Raises:
        InputError: the file system that holds `folder` has less than that free.
    """
    if beside_what_is_there:
        needed = max(0, needed - bytes_below(folder))
    existing = Path(folder).resolve()
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise InputError(
            f"{folder}: needs {needed / 1e9:.2f} GB of disk, {free / 1e9:.2f} GB is free; "
            "free some space or set another folder"
        )
