"""The local engine: one process per place, each fed one shard at a time through a pipe of its own."""

import os
import subprocess
from dataclasses import asdict, dataclass
from multiprocessing.connection import wait
from pathlib import Path

from megasbp.errors import InputError
from megasbp.shards.config import ShardsConfig
from megasbp.shards.job import Job, Outcome
from megasbp.shards.machine import usable_cores, usable_memory
from megasbp.shards.process import PipedProcess
from megasbp.shards.publication import remove_leftovers

# A worker that was told to end and does not is killed.
_SECONDS_TO_END = 10.0


@dataclass
class _Worker:
    process: PipedProcess
    shard: int


class LocalPool:
    """Processes of this machine. A context manager: on an exception the work under way is thrown away.

    Args:
        job: what is done.
        config: how many at a time, with what.

    Raises:
        InputError: the machine has not what the tasks need.
    """

    def __init__(self, job: Job, config: ShardsConfig) -> None:
        self._job, self._config = job, config
        self._devices = visible_devices()
        self._places = local_places(config, len(self._devices))
        self._free = list(reversed(range(self._places)))
        self._busy: dict[int, _Worker] = {}
        self._idle: dict[int, _Worker] = {}

    def __enter__(self) -> "LocalPool":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        workers = [*self._busy.values(), *self._idle.values()]
        for worker in self._idle.values():
            if kind is None:
                worker.process.send(None)
        for worker in workers:
            try:
                if kind is None:
                    worker.process.popen.wait(_SECONDS_TO_END)
            except subprocess.TimeoutExpired:
                pass
            finally:
                worker.process.end()

    def has_room(self) -> bool:
        """Whether another shard can be begun now."""
        return bool(self._idle or self._free)

    def submit(self, shard: int) -> None:
        """Begins a shard; needs room."""
        if self._idle:
            place, worker = self._idle.popitem()
        else:
            place = self._free.pop()
            worker = self._start(place)
        worker.shard = shard
        # Where this fails the worker has died idle; that shows in `wait`, as for any other death.
        worker.process.send(shard)
        self._busy[place] = worker

    def wait(self, seconds: float) -> list[Outcome]:
        """The outcomes of attempts that have ended, after at most that time."""
        ready = wait([worker.process.connection for worker in self._busy.values()], seconds)
        outcomes = []
        for place, worker in list(self._busy.items()):
            if worker.process.connection in ready or worker.process.has_died():
                del self._busy[place]
                outcomes.append(self._receive(place, worker))
        return outcomes

    def _receive(self, place: int, worker: _Worker) -> Outcome:
        answer = worker.process.answer()
        if answer is not None:
            self._idle[place] = worker
            return Outcome(**answer)
        self._free.append(place)
        remove_leftovers(Path(self._job.folder), worker.shard)
        return Outcome(worker.shard, "died", worker.process.describe_exit())

    def _start(self, place: int) -> _Worker:
        # A task that asked for no GPU sees none, on either engine.
        devices = place_devices(place, self._config.gpus, self._devices)
        environment = os.environ | self._config.thread_variables | {"CUDA_VISIBLE_DEVICES": ",".join(devices)}
        process = PipedProcess("megasbp.shards.local_worker", environment)
        process.send(asdict(self._job))
        return _Worker(process, shard=-1)


def visible_devices() -> list[str]:
    """Names of the GPUs that this process may use, as CUDA_VISIBLE_DEVICES lists them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip()]
    return [str(number) for number in range(len(list(Path("/dev").glob("nvidia[0-9]*"))))]


def place_devices(place: int, gpus: float, devices: list[str]) -> list[str]:
    """The GPUs of one place."""
    if gpus == 0:
        return []
    if gpus < 1:
        return [devices[place // int(1 / gpus)]]
    return devices[place * int(gpus) : (place + 1) * int(gpus)]


def local_places(config: ShardsConfig, devices: int) -> int:
    """How many shards this machine works on at a time.

    Args:
        devices: GPUs of this machine.

    Raises:
        InputError: not even one task fits, or `workers` need more GPUs or memory than there is.
    """
    wanted = config.workers or 1
    # More workers than processors are slow; more than the GPUs or the memory hold would fail.
    places = [max(1, usable_cores() // config.cpus)]
    if config.gpus:
        places.append(devices * int(1 / config.gpus) if config.gpus < 1 else devices // int(config.gpus))
        if places[-1] < wanted:
            raise InputError(
                f"shards.gpus is {config.gpus:g} for each of {wanted} workers; this machine shows "
                f"{devices} GPUs, enough for {places[-1]}; lower shards.gpus or shards.workers"
            )
    if config.memory_gb:
        memory = usable_memory() / 1e9
        places.append(int(memory / config.memory_gb))
        if places[-1] < wanted:
            raise InputError(
                f"shards.memory_gb is {config.memory_gb:g} for each of {wanted} workers; this machine has "
                f"{memory:.1f} GB, enough for {places[-1]}; lower shards.memory_gb or shards.workers"
            )
    return config.workers or min(places)
