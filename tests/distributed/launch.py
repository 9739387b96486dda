"""Ranks of this machine as torchrun would start them, but forked: torch is imported once."""

import os
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # optimisers import it at first use, which would take each rank seconds


def fork_ranks(function: Callable[..., None], ranks: int, *arguments: Any) -> None:
    """Runs `function(*arguments)` on every rank; RuntimeError when one fails.

    Call it from a process that has not run a single operation of torch: its threads would not be forked.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = {}
    for rank in range(ranks):
        child = os.fork()
        if child == 0:
            os.environ |= {
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(ranks),
            }
            torch.set_num_threads(1)
            status = 1
            try:
                function(*arguments)
                status = 0
            except BaseException:
                print(f"rank {rank} of {ranks}:\n{traceback.format_exc()}", flush=True)
            finally:
                os._exit(status)
        children[child] = rank
    failed = [rank for child, rank in children.items() if os.waitpid(child, 0)[1] != 0]
    if failed:
        raise RuntimeError(f"ranks {failed} of {ranks} failed")


def launch(script: str, *folders: Path, seconds: float) -> None:
    """Runs a file of this folder, which forks ranks; fails with what it has printed."""
    here = Path(__file__).resolve().parent
    places = [
        str(here.parent.parent),
        str(here.parent / "training"),
        str(here.parent / "data"),
        os.environ.get("PYTHONPATH", ""),
    ]
    ended = subprocess.run(
        [sys.executable, str(here / script), *map(str, folders)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(places)},
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
