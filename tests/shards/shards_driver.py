"""A process of its own, without a `__main__` guard: `shards_driver.py ENGINE FOLDER MARKS SECONDS`."""

import sys
from pathlib import Path

from shard_work import mark

from megasbp.shards.config import ShardsConfig
from megasbp.shards.engine import run_shards

run_shards(
    mark,
    range(12),
    Path(sys.argv[2]),
    settings={"seconds": float(sys.argv[4])},
    inputs={},
    paths={"marks": Path(sys.argv[3])},
    config=ShardsConfig(engine=sys.argv[1], workers=2),
)
