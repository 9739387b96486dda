"""Ranks of this machine as torchrun would start them, but forked: torch is imported once."""

import os
import socket
import traceback
from collections.abc import Callable
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
