"""How hosts that wait for a stage of others hear that host 0 has failed: from its store."""

import time
from collections.abc import Iterable
from datetime import timedelta

from torch.distributed import DistError, TCPStore

# The longest time between two looks at the store, so that host 0 knows how long to keep it.
LONGEST_PAUSE = 30.0
_KEY = "megasbp/failed"
_CONNECT_SECONDS = 5


def tell(store: TCPStore, hosts: Iterable[int], message: str) -> None:
    """On host 0: says that it has failed, and returns when these hosts have heard it, or no longer will."""
    store.set(_KEY, message)
    unheard = {f"{_KEY}/heard by {host}" for host in hosts}
    end = time.monotonic() + LONGEST_PAUSE + _CONNECT_SECONDS
    while unheard and time.monotonic() < end:
        unheard = {key for key in unheard if not store.check([key])}
        time.sleep(0.1)


def heard(endpoint: str, host: int) -> str | None:
    """On another host: what host 0 said when it failed.

    Returns:
        None while it has not failed, and where it is not there: a lost host 0 comes back.
    """
    name, _, port = endpoint.rpartition(":")
    try:
        store = TCPStore(
            name,
            int(port),
            is_master=False,
            wait_for_workers=False,
            timeout=timedelta(seconds=_CONNECT_SECONDS),
        )
        if not store.check([_KEY]):
            return None
        message: bytes = store.get(_KEY)
        store.set(f"{_KEY}/heard by {host}", "")
    except DistError:
        return None
    return message.decode()
