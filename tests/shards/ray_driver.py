"""A run on a Ray cluster of two nodes on this host, one of which fails: `ray_driver.py FOLDER MARKS FAILURE`.

FAILURE is "killed", by SIGKILL in the middle of a shard, or "frozen": Ray takes the node for dead and has the
shard done elsewhere, then the node comes back and publishes it too. The last line is what the run announced,
as JSON.
"""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
# Keeps Ray on the loopback address; read when it is imported.
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
# A connection that is silent for a second, not for minutes, is taken for dead.
os.environ.update(RAY_grpc_client_keepalive_time_ms="1000", RAY_grpc_client_keepalive_timeout_ms="1000")

from ray.cluster_utils import Cluster
from shard_work import mark

from megasbp.shards.config import ShardsConfig
from megasbp.shards.engine import run_shards


def parent(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


def begun_on(node, marks: Path, folder: Path) -> tuple[int, int] | None:
    """The shard a node is at work on, and its worker's process."""
    raylet = node.all_processes["raylet"][0].process.pid
    for path in marks.iterdir():
        shard, worker, _ = (int(part) for part in path.name.split("-"))
        if not (folder / f"shard-{shard:06d}").exists() and parent(worker) == raylet:
            return shard, worker
    return None


def wait_for(condition):
    while not (value := condition()):
        time.sleep(0.01)
    return value


def kill(cluster: Cluster, node, marks: Path, folder: Path, lines: list[str]) -> None:
    wait_for(lambda: len(list(folder.glob("shard-*/manifest.json"))) >= 4)
    shard, worker = wait_for(lambda: begun_on(node, marks, folder))
    # As when the power goes: nothing of the node says goodbye.
    for process in (worker, node.all_processes["raylet"][0].process.pid):
        os.kill(process, signal.SIGKILL)
    lines.append(f"killed in {shard}")


def freeze(cluster: Cluster, node, marks: Path, folder: Path, lines: list[str]) -> None:
    shard, worker = wait_for(lambda: begun_on(node, marks, folder))
    raylet = node.all_processes["raylet"][0].process.pid
    for process in (raylet, worker):
        os.kill(process, signal.SIGSTOP)
    wait_for(lambda: any(f"shard {shard}: its worker was lost" in line for line in lines))
    # The second attempt is at work before the first goes on, and needs longer.
    wait_for(lambda: len(list(marks.glob(f"{shard}-*"))) == 2)
    os.kill(worker, signal.SIGCONT)
    wait_for((folder / f"shard-{shard:06d}").exists)
    lines.append(f"frozen in {shard}, published by the first attempt")
    os.kill(raylet, signal.SIGCONT)


def main() -> None:
    folder, marks = Path(sys.argv[1]), Path(sys.argv[2])
    node = {"num_cpus": 1, "object_store_memory": 128 * 2**20, "include_dashboard": False}
    # A node that does not answer three times is taken for dead.
    health = {
        "health_check_period_ms": 500,
        "health_check_timeout_ms": 1000,
        "health_check_failure_threshold": 3,
    }
    cluster = Cluster(initialize_head=True, head_node_args={**node, "_system_config": health})
    second = cluster.add_node(**node)
    lines: list[str] = []
    fail = {"killed": kill, "frozen": freeze}[sys.argv[3]]
    threading.Thread(target=fail, args=(cluster, second, marks, folder, lines), daemon=True).start()
    run_shards(
        mark,
        range(16),
        folder,
        settings={"seconds": 0.5},
        inputs={},
        paths={"marks": marks},
        config=ShardsConfig(engine="ray", address=cluster.address),
        announce=lines.append,
    )
    cluster.shutdown()
    print(json.dumps(lines))


main()
