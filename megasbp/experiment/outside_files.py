"""Hashes of files that are not the run's own, remembered in its folder: a corpus may be terabytes."""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from megasbp.errors import NOT_ALLOWED, InputError
from megasbp.storage import hash_once, publish_json, read_json

REMEMBERED = "outside-files.json"
# A file changed so shortly before it was read may change again without another time.
_SETTLED_SECONDS = 2.0


def hash_outside_files(files: Sequence[Path], run: Path, remember: bool) -> list[str]:
    """SHA-256 of each file, hexadecimal. One whose size, times and inode are as they were is not read again.

    Args:
        files: any files.
        run: a run's folder; what is remembered lies there. It need not exist.
        remember: keeps there what was read, where that is allowed.

    Raises:
        OSError: a file cannot be read.
    """
    known = _known(run / REMEMBERED)
    hashes, read = [], False
    for file in files:
        place, status = os.path.abspath(file), _status(file)
        entry = known.get(place)
        if entry is None or entry.get("status") != status:
            began = time.time()
            entry = {"status": status, "sha256": hash_once(file)}
            if _status(file) == status and max(status[2:]) < (began - _SETTLED_SECONDS) * 1e9:
                known[place], read = entry, True
        hashes.append(entry["sha256"])
    if read and remember:
        _keep(run / REMEMBERED, known)
    return hashes


def _known(path: Path) -> dict[str, Any]:
    try:
        known = read_json(path)
    except InputError:
        return {}
    whole = isinstance(known, dict) and all(isinstance(entry, dict) for entry in known.values())
    return known if whole else {}


def _keep(path: Path, known: dict[str, Any]) -> None:
    try:
        publish_json(path, known)
    except OSError as error:
        # The run may be somebody else's.
        if error.errno not in NOT_ALLOWED:
            raise


def _status(file: Path) -> list[int]:
    """Size, inode, times of change: they are the same on every host that sees the file."""
    status = os.stat(file)
    return [status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns]
