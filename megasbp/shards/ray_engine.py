"""The Ray engine: one task per shard on a cluster whose nodes see the folder by the same path.

Ray places the tasks and tells of dead workers and nodes; which shard is begun again, and how often, is
decided by the run, as on the local engine. An attempt that Ray gave up for dead may still publish: see
`publication`.
"""

import importlib.util
import ipaddress
import logging
import os
import sys
from dataclasses import asdict
from typing import Any

from megasbp.errors import InputError
from megasbp.shards.attempt import attempt_shard
from megasbp.shards.config import ShardsConfig
from megasbp.shards.job import Job, Outcome
from megasbp.shards.machine import usable_cores

# Ray keeps the queue: a node that hangs, and is known to be dead only minutes later, must not keep the others
# from their work by filling a short one.
_TASKS_IN_FLIGHT = 10_000
# The tasks send nothing through the object store but a few manifests; Ray would set aside a third of the
# memory for it.
_OBJECT_STORE_BYTES = 128 * 2**20


class RayPool:
    """Tasks on a Ray cluster. A context manager: on an exception the work under way is thrown away.

    Uses the cluster that this process is connected to, if it is; else connects to `config.address`, or starts
    a cluster on the loopback address, and disconnects at the end.

    Args:
        job: what is done.
        config: how many at a time, with what.

    Raises:
        InputError: Ray is not installed, the cluster cannot be reached, or no node has what a task needs.
    """

    def __init__(self, job: Job, config: ShardsConfig) -> None:
        ray = _import_ray(alone=config.address is None)
        self._ray, self._config = ray, config
        self._connected_here = not ray.is_initialized()
        if self._connected_here:
            _connect(ray, config)
        try:
            _require_room(ray, config)
            self._job = ray.put(asdict(job))
        except BaseException:
            self._disconnect()
            raise
        self._limit = config.workers or _TASKS_IN_FLIGHT
        self._running: dict[Any, int] = {}
        # Ray's own retries are off: the run counts the attempts.
        self._task = ray.remote(_attempt).options(
            num_cpus=config.cpus,
            num_gpus=config.gpus,
            memory=int(config.memory_gb * 1e9) if config.memory_gb else None,
            max_retries=0,
            runtime_env={"env_vars": _environment(config)},
        )

    def __enter__(self) -> "RayPool":
        return self

    def __exit__(self, *_: object) -> None:
        if self._connected_here:
            # Takes the tasks with it.
            self._disconnect()
            return
        for reference in self._running:
            self._ray.cancel(reference, force=True)

    def _disconnect(self) -> None:
        if self._connected_here:
            self._ray.shutdown()

    def has_room(self) -> bool:
        """Whether another shard can be begun now."""
        return len(self._running) < self._limit

    def submit(self, shard: int) -> None:
        """Begins a shard; needs room."""
        self._running[self._task.remote(self._job, shard)] = shard

    def wait(self, seconds: float) -> list[Outcome]:
        """The outcomes of attempts that have ended, after at most that time."""
        if not self._ray.wait(list(self._running), num_returns=1, timeout=seconds)[0]:
            return []
        ended, _ = self._ray.wait(list(self._running), num_returns=len(self._running), timeout=0)
        return [self._outcome(reference) for reference in ended]

    def _outcome(self, reference: Any) -> Outcome:
        shard = self._running.pop(reference)
        try:
            return Outcome(**self._ray.get(reference))
        except self._ray.exceptions.RayError as error:
            # Ray's advice on its own command line follows the first sentence.
            text = str(error).strip().partition("\n")[0].partition(". ")[0]
            return Outcome(shard, "died", f"its worker was lost ({type(error).__name__}: {text})")


def _require_room(ray: Any, config: ShardsConfig) -> None:
    """Refuses tasks that no node can ever take: Ray would wait for one for ever."""
    needs = {"CPU": config.cpus, "GPU": config.gpus, "memory": (config.memory_gb or 0) * 1e9}
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(all(node.get(name, 0) >= need for name, need in needs.items()) for node in nodes):
        raise InputError(
            f"shards: no node of the Ray cluster has the {config.cpus} CPUs, {config.gpus:g} GPUs and "
            f"{config.memory_gb or 0:g} GB of a task; lower shards.cpus, gpus or memory_gb"
        )


def _attempt(job: dict[str, Any], shard: int) -> dict[str, Any]:
    """The Ray task: plain values in, plain values out."""
    return asdict(attempt_shard(Job(**job), shard))


def _environment(config: ShardsConfig) -> dict[str, str]:
    """Environment of the workers: threads, hidden GPUs, and where modules lie that are not installed."""
    # The interpreter's own folders are left out: another node may have them elsewhere.
    own = (sys.prefix, sys.base_prefix, sys.exec_prefix)
    search = [entry for each in sys.path if not (entry := os.path.abspath(each)).startswith(own)]
    variables = {"PYTHONPATH": os.pathsep.join([*search, "${PYTHONPATH}"])}
    if config.gpus == 0:
        # Ray leaves a task that asks for no GPU all of them.
        variables["CUDA_VISIBLE_DEVICES"] = ""
    return config.thread_variables | variables


def _import_ray(alone: bool) -> Any:
    """Ray, imported with the environment that it reads only then."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    if alone and "ray" not in sys.modules:
        # Keeps every port of a cluster started here on the loopback address. Ray does so by itself where this
        # variable got its name; `_node_ip_address="127.0.0.1"` is turned into the machine's outer address.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    require_ray()
    import ray

    return ray


def require_ray() -> None:
    """Raises InputError where Ray is not installed."""
    if importlib.util.find_spec("ray") is None:
        raise InputError(
            "shards.engine is \"ray\", which is not installed; run `pip install '.[ray]'` from a clone or "
            'set shards.engine to "local"'
        )


def _connect(ray: Any, config: ShardsConfig) -> None:
    if config.address is None:
        processors = usable_cores()
        ray.init(
            address="local",
            num_cpus=config.cpus * config.workers if config.workers else processors,
            object_store_memory=_OBJECT_STORE_BYTES,
            include_dashboard=False,
            logging_level=logging.WARNING,
        )
        address = ray.util.get_node_ip_address()
        if not ipaddress.ip_address(address).is_loopback:
            ray.shutdown()
            raise InputError(
                f"shards: Ray was imported before and would listen on {address}; import it later, or start a "
                "cluster yourself and set shards.address"
            )
        return
    try:
        ray.init(address=config.address, logging_level=logging.WARNING)
    except (ConnectionError, ValueError, RuntimeError) as error:
        text = str(error).strip().partition("\n")[0]
        raise InputError(
            f"shards.address is {config.address!r}: no Ray cluster answers there ({text}); start one with "
            "`ray start --head`, or leave the address out to have one started here"
        ) from None
