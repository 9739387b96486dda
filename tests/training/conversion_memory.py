"""Converts a checkpoint to Hugging Face's form and back; prints what memory each took beyond the libraries.

    python conversion_memory.py CHECKPOINT FOLDER SHARD_BYTES

Prints as JSON the bytes by which the process grew at most: {"export": ..., "import": ...}.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from megasbp.training.conversion import export_checkpoint, import_checkpoint


def peak() -> int:
    """Largest resident bytes of this process so far, mapped files included."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line]
    return int(line.split()[1]) * 1024


def growth(function: Callable[..., None], *arguments: Any) -> int:
    """Bytes by which the peak grew during a call."""
    before = peak()
    function(*arguments)
    return peak() - before


if __name__ == "__main__":
    checkpoint, folder, shard_bytes = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    torch.ones(1000, 1000) @ torch.ones(1000, 1000)  # what the libraries take at first use
    # Back first, from a folder in one file; its growth would not be seen behind the larger one.
    grown = {"import": growth(import_checkpoint, folder / "one-file", folder / "back")}
    grown["export"] = grown["import"] + growth(
        export_checkpoint, checkpoint, folder / "exported", None, shard_bytes
    )
    print(json.dumps(grown))
