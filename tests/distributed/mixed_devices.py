"""Three ranks, of which the last claims to see a GPU; run by test_runtime.py."""

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from launch import fork_ranks

from megasbp.errors import InputError
from megasbp.parallel.runtime import Runtime


def start(folder: Path) -> None:
    rank = os.environ["RANK"]
    if rank == "2":
        torch.cuda.is_available = lambda: True
        torch.cuda.device_count = lambda: 3
        torch.cuda.set_device = lambda device: None
        join = dist.init_process_group
        # A CPU build has no NCCL; with one, it is not used before ranks have agreed.
        dist.init_process_group = lambda backend: join("gloo")
    try:
        Runtime.start()
    except InputError as error:
        (folder / rank).write_text(str(error))


if __name__ == "__main__":
    fork_ranks(start, 3, Path(sys.argv[1]))
