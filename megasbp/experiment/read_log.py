"""Each time that losses on test documents were put into results: who decides what, having read which.

A preregistered comparison is only as good as what was read before it was fixed. This file shows it, as far as
a file can that anyone may edit.
"""

import getpass
import json
import os
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from megasbp.storage import hash_file

READS_NAME = "test_reads.jsonl"


def note_read(folder: Path, path: Path, results: dict[str, Any]) -> None:
    """Adds a line to test_reads.jsonl.

    Args:
        folder: of the run, which has the file.
        path: of what was published.
        results: as published there.
    """
    arms = results["arms"]
    row = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "user": _user(),
        "host": socket.gethostname(),
        "results": os.path.relpath(path, folder),
        "sha256": hash_file(path),
        "recipe": results["recipe_hash"],
        "arms": sorted(arms),
        "seeds": sorted({int(seed) for arm in arms.values() for seed in arm["seeds"]}),
    }
    # One write: lines of several processes stay whole.
    with open(folder / READS_NAME, "ab", buffering=0) as file:
        file.write(json.dumps(row).encode() + b"\n")


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # In containers without a name for the number.
        return str(os.getuid())
