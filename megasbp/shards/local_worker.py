"""The process that works on shards for the local engine.

It is told the job, then one shard number after the other, and answers each with an outcome. A null ends it.
"""

from dataclasses import asdict

from megasbp.shards.attempt import attempt_shard
from megasbp.shards.job import Job
from megasbp.shards.process import MainProcess


def serve(descriptor: int) -> None:
    """Works until it is told to end; dies with its whole process group when the main process is gone.

    Args:
        descriptor: of the pipe to the main process.
    """
    main = MainProcess(descriptor)
    job = Job(**main.receive())
    while (shard := main.receive()) is not None:
        main.send(asdict(attempt_shard(job, shard)))
