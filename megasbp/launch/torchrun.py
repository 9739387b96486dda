"""Every host types the same command: torchrun's agents meet, stage by stage, at a c10d rendezvous.

Which stages are left is read from the shared file system by every host for itself. So a host that comes back,
or comes late, goes to the stage that the others are at, whose ranks then start again from the newest
checkpoint.
"""

import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from torch.distributed import TCPStore
from torch.distributed.elastic.multiprocessing import SignalException

from megasbp.errors import InputError, StageError
from megasbp.launch.agent import run_agent
from megasbp.launch.config import ClusterConfig
from megasbp.launch.failure import LONGEST_PAUSE, heard, tell
from megasbp.launch.job import Job

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


@dataclass(frozen=True)
class Host:
    """This host among those that type the command.

    Attributes:
        rank: 0 <= rank; host 0 makes the stages of one process, and the agents meet there.
        endpoint: HOST:PORT of host 0 as all hosts reach it; None where no job has several.
    """

    rank: int = 0
    endpoint: str | None = None


def run_jobs(
    jobs: Sequence[Job],
    host: Host,
    cluster: ClusterConfig,
    finished: Callable[[Job], bool],
    announce: Callable[[str], None],
) -> None:
    """Makes this host's part of the jobs, in order, up to the last one that it takes part in.

    Args:
        finished: whether a job's stages are there, as the shared file system has it now.

    Raises:
        InputError: several hosts and no endpoint, or one that cannot be used.
        StageError: a job has failed, here or on host 0.
    """
    nodes = _most_nodes(jobs)
    with _meeting_place(jobs, host) as (endpoint, store), _stoppable():
        own = [number for number, job in enumerate(jobs) if host.rank < job.resources.nodes]
        for job in jobs[: own[-1] + 1]:
            if finished(job):
                announce(f"{job.name}: done before, kept")
            elif host.rank >= job.resources.nodes:
                _wait_for(job, host, endpoint, finished, announce)
            else:
                try:
                    if job.resources.ranks == 1:
                        _run_process(job, announce)
                    else:
                        run_agent(job, store is not None, endpoint, cluster, finished, announce)
                except StageError as error:
                    # The hosts of this job know it from their agents.
                    if store is not None:
                        tell(store, range(job.resources.nodes, nodes), str(error))
                    raise


def describe(job: Job) -> str:
    """One line: what a job runs on, and its command."""
    resources = job.resources
    shape = f"{resources.nodes} x {resources.processes} ranks" if resources.ranks > 1 else "one process"
    return f"{job.name}: {shape}: python {shlex.join(job.arguments)}"


def _most_nodes(jobs: Sequence[Job]) -> int:
    return max(job.resources.nodes for job in jobs)


@contextmanager
def _meeting_place(jobs: Sequence[Job], host: Host) -> Iterator[tuple[str, TCPStore | None]]:
    """The endpoint, and on host 0 its store, for the whole run: no stage meets the end of another's."""
    nodes = _most_nodes(jobs)
    if not 0 <= host.rank < nodes:
        raise InputError(f"--node-rank {host.rank}: the recipe's stages use {nodes} hosts, 0 to {nodes - 1}")
    if host.endpoint is None and nodes > 1:
        raise InputError(
            f"--rdzv-endpoint: is needed where stages use {nodes} hosts; give host 0's name and a free port, "
            "HOST:PORT, the same on every host"
        )
    name, colon, port = (host.endpoint or "127.0.0.1:0").rpartition(":")
    if not colon or not port.isdigit():
        raise InputError(f"--rdzv-endpoint {host.endpoint}: is not HOST:PORT, e.g. node-1:29400")
    if host.rank > 0:
        yield f"{name}:{port}", None
        return
    try:
        store = TCPStore(name, int(port), is_master=True, multi_tenant=True, wait_for_workers=False)
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"--rdzv-endpoint {name}:{port}: host 0 cannot listen there ({str(error).splitlines()[0]}); "
            "name this host and a free port"
        ) from None
    yield f"{name}:{store.port}", store


@contextmanager
def _stoppable() -> Iterator[None]:
    """Makes SIGTERM torchrun's exception, so that what was started is stopped, and the meeting not closed."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise SignalException(f"got signal {number}", signal.Signals(number))

    # Agents leave their handlers behind.
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except SignalException as stopped:
        if stopped.sigval == signal.SIGINT:
            raise KeyboardInterrupt from None
        raise SystemExit(128 + stopped.sigval) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait_for(
    job: Job,
    host: Host,
    endpoint: str,
    finished: Callable[[Job], bool],
    announce: Callable[[str], None],
) -> None:
    announce(f"{job.name}: is made on other hosts; waiting")
    pause = 1.0
    while not finished(job):
        if (failure := heard(endpoint, host.rank)) is not None:
            raise StageError(f"host 0 has failed, and its lines say why: {failure}")
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)


def _run_process(job: Job, announce: Callable[[str], None]) -> None:
    announce(f"{job.name}: one process")
    process = subprocess.Popen([sys.executable, *job.arguments])
    try:
        status = process.wait()
    except BaseException:
        process.terminate()
        process.wait()
        raise
    if status != 0:
        raise StageError(f"{job.name}: failed with status {status}; its lines above say why")
