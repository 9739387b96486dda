"""How the tests call megasbp, and what a run publishes."""

import os
import sys
from pathlib import Path


def megasbp_command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "megasbp", *arguments]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


def published(run: Path) -> dict[str, bytes]:
    """What a run's report consists of."""
    files = ("results.json", "table.txt", "report.html")
    return {name: (run / "report" / name).read_bytes() for name in files}
