"""torchrun's agent, in this process: it starts a host's ranks, and starts them again when a host was lost."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from types import FrameType

from torch.distributed import DistError
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.elastic.rendezvous import RendezvousClosedError, RendezvousError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from megasbp.errors import StageError
from megasbp.launch.config import ClusterConfig
from megasbp.launch.job import Job

# An agent waits for a lost host until someone has seen to it. One that gives up closes the meeting for all.
_JOIN_SECONDS = 30 * 24 * 3600
# Also for answers of the store while other agents start: hosts may be busy.
_CONNECT_SECONDS = 600
# Agents that are still there when their stage has been finished for so long have lost a host at its very end.
_END_SECONDS = 60


def run_agent(
    job: Job,
    keeps_store: bool,
    endpoint: str,
    cluster: ClusterConfig,
    finished: Callable[[Job], bool],
    announce: Callable[[str], None],
) -> None:
    """Starts this host's ranks of a job when all hosts are there, and again after failures, until they end.

    Args:
        keeps_store: whether the store at `endpoint` is in this process.
        finished: whether the job's stages are there.

    Raises:
        StageError: ranks of this host have failed more often than `cluster` allows, or those of another.
    """
    resources = job.resources
    announce(f"{job.name}: {resources.nodes} x {resources.processes} ranks, meeting at {endpoint}")
    with _environment(resources.processes, cluster.seconds_to_stop):
        _run_agent(job, _launch_config(job, keeps_store, endpoint, cluster), finished, announce)


def _launch_config(job: Job, keeps_store: bool, endpoint: str, cluster: ClusterConfig) -> LaunchConfig:
    return LaunchConfig(
        min_nodes=job.resources.nodes,
        max_nodes=job.resources.nodes,
        nproc_per_node=job.resources.processes,
        # It becomes part of a file's name.
        run_id=job.name.replace("/", "-"),
        rdzv_backend="c10d",
        rdzv_endpoint=endpoint,
        rdzv_configs={
            "is_host": keeps_store,
            "join_timeout": _JOIN_SECONDS,
            "read_timeout": _CONNECT_SECONDS,
        },
        max_restarts=cluster.maximum_restarts,
    )


def _run_agent(
    job: Job, config: LaunchConfig, finished: Callable[[Job], bool], announce: Callable[[str], None]
) -> None:
    while True:
        try:
            with TemporaryDirectory(prefix="megasbp-agent-") as logs, _ending_when(lambda: finished(job)):
                config.logs_specs = DefaultLogsSpecs(log_dir=logs)
                elastic_launch(config, sys.executable)(*job.arguments)
            return
        except _FinishedWithoutUs:
            return
        except ChildFailedError as error:
            rank, failure = error.get_first_failure()
            raise StageError(
                f"{job.name}: rank {rank} failed with status {failure.exitcode}, after "
                f"{config.max_restarts} restarts; its lines above say why"
            ) from None
        except RendezvousClosedError:
            raise StageError(f"{job.name}: has failed on another host; its lines there say why") from None
        except (RendezvousError, DistError):
            # The store has gone with host 0, or host 0 is not there yet.
            if finished(job):
                return
            announce(f"{job.name}: host 0 is not at {config.rdzv_endpoint}; trying again")
            time.sleep(1)


class _FinishedWithoutUs(Exception):
    """The stage was published, but an agent that was lost since then cannot say that its ranks have ended."""


@contextmanager
def _ending_when(finished: Callable[[], bool]) -> Iterator[None]:
    """Raises _FinishedWithoutUs in the block when it goes on long after `finished`.

    Such an agent would wait for a replacement that never comes: it finds the stage finished, and passes by.
    """
    seen = False

    def look(number: int, frame: FrameType | None) -> None:
        nonlocal seen
        if seen:
            raise _FinishedWithoutUs
        seen = finished()
        # Only now: looking may take longer than that, and must not be interrupted by itself.
        signal.setitimer(signal.ITIMER_REAL, _END_SECONDS)

    before = signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, _END_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def _environment(processes: int, seconds_to_stop: int) -> Iterator[None]:
    """What an agent and its ranks find in the environment, where it does not say otherwise."""
    wanted = {
        # Agents that share their store keep rank 0's address of the first round, so that a replacement waits
        # for one that nobody sends (pytorch issue 135712).
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
        # Of ranks that are asked to stop; when one fails, the agent kills the others after 30.
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(seconds_to_stop),
        # As torchrun: one thread for each of several ranks of a host.
        **({"OMP_NUM_THREADS": "1"} if processes > 1 else {}),
    }
    added = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ |= added
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]
