"""A run on a Ray cluster that it starts itself: `ray_alone_driver.py FOLDER MARKS`.

A worker is killed in it; then a mistake of the user is met. The last line holds as JSON what the run
announced, the mistake, the addresses that its processes listened on, whether Ray's usage statistics were on,
and what a task saw of its environment.
"""

import contextlib
import ipaddress
import json
import os
import socket
import sys
import threading
import time
from pathlib import Path

import shard_work

from megasbp.errors import InputError
from megasbp.shards.config import ShardsConfig
from megasbp.shards.engine import run_shards


def listening_sockets() -> dict[str, str]:
    """Inode -> address, as in /proc/net."""
    found = {}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A":
                words = bytes.fromhex(fields[1].partition(":")[0])
                # Each 32-bit word is printed in the machine's order.
                packed = b"".join(words[i : i + 4][::-1] for i in range(0, len(words), 4))
                found[fields[9]] = socket.inet_ntop(
                    socket.AF_INET6 if len(packed) == 16 else socket.AF_INET, packed
                )
    return found


def descendants(root: int) -> set[int]:
    """A process and all that come from it."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    family = {root}
    while children := {process for process, parent in parents.items() if parent in family} - family:
        family |= children
    return family


def listened_on() -> set[str]:
    """Addresses on which this process and its descendants listen."""
    sockets, addresses = listening_sockets(), set()
    for process in descendants(os.getpid()):
        with contextlib.suppress(OSError):
            for descriptor in Path(f"/proc/{process}/fd").iterdir():
                with contextlib.suppress(OSError):
                    name = os.readlink(descriptor)
                    if name.startswith("socket:[") and name[8:-1] in sockets:
                        addresses.add(sockets[name[8:-1]])
    return addresses


def main() -> None:
    folder, marks = Path(sys.argv[1]), Path(sys.argv[2])
    lines: list[str] = []
    addresses: set[str] = set()

    def look() -> None:
        while True:
            addresses.update(listened_on())
            time.sleep(0.2)

    threading.Thread(target=look, daemon=True).start()
    config = ShardsConfig(engine="ray", workers=2, threads=3)
    same = {"inputs": {}, "config": config, "announce": lines.append}
    settings = {"victim": 3, "times": 1}
    run_shards(shard_work.die, range(6), folder / "die", settings=settings, paths={"marks": marks}, **same)

    from ray._common.usage.usage_lib import usage_stats_enabled

    paths = {"corpus": Path(__file__), "parts": []}
    environment = run_shards(
        shard_work.show_environment, [0], folder / "show", settings={}, paths=paths, **same
    )
    mistake = ""
    try:
        settings = {"victim": 1, "kind": "mistake"}
        run_shards(
            shard_work.fail, range(9), folder / "fail", settings=settings, paths={"marks": marks}, **same
        )
    except InputError as error:
        mistake = str(error)
    result = {
        "lines": lines,
        "mistake": mistake,
        "loopback": sorted(address for address in addresses if is_loopback(address)),
        "others": sorted(address for address in addresses if not is_loopback(address)),
        "usage statistics": usage_stats_enabled(),
        "environment": environment[0].facts,
    }
    print(json.dumps(result))


def is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address.removeprefix("::ffff:")).is_loopback


main()
