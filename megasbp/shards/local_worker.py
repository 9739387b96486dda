"""The process that works on shards for the local engine.

It is told the job, then one shard number after the other, each as one JSON message on a pipe, and answers
each with an outcome. A null ends it.
"""

import json
import os
import queue
import signal
import threading
from dataclasses import asdict
from multiprocessing.connection import Connection

from megasbp.shards.attempt import attempt_shard
from megasbp.shards.job import Job


def serve(descriptor: int) -> None:
    """Works until it is told to end; dies with its whole process group when the main process is gone.

    Args:
        descriptor: of the pipe to the main process.
    """
    connection = Connection(descriptor)
    messages: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def listen() -> None:
        # In a thread of its own, so that the end of the main process is seen in the middle of a shard.
        try:
            while True:
                messages.put(connection.recv_bytes())
        except (EOFError, OSError):
            os.killpg(os.getpgrp(), signal.SIGKILL)

    threading.Thread(target=listen, daemon=True).start()
    job = Job(**json.loads(messages.get()))
    while (shard := json.loads(messages.get())) is not None:
        connection.send_bytes(json.dumps(asdict(attempt_shard(job, shard))).encode())
