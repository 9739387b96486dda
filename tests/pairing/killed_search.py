"""A step of the search whose worker is killed once; importable by the workers, as every step must be."""

import os
import signal
from pathlib import Path
from typing import Any

from megasbp.pairing import partition_search

# Environment variable: a file that is there once a worker has died.
MARK = "MEGASBP_TEST_WORKER_DIED"


def search_cross(shard: int, folder: Path, **settings: Any) -> None:
    """The step, but the first attempt at shard 1 is killed with a half-written file in its folder."""
    mark = Path(os.environ[MARK])
    if shard == 1 and not mark.exists():
        (folder / "owner.npy").write_bytes(b"half")
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    partition_search.search_cross(shard, folder, **settings)
