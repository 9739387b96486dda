"""One run at a time writes a folder, and workers left over from an earlier run cannot."""

import fcntl
import os
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from megasbp.errors import InputError

_LOCK_NAME = ".lock"


@contextmanager
def folder_lock(folder: Path, beside: bool = False) -> Iterator[str]:
    """Holds a folder; yields the run's token, which the lock file shows to the workers.

    The file is removed at the end, so that a finished folder holds its results and nothing else.

    Args:
        beside: the file lies beside the folder, .NAME.lock, and not in it.

    Raises:
        InputError: another process holds the folder; the message names it.
    """
    path = folder.with_name(f".{folder.name}{_LOCK_NAME}") if beside else folder / _LOCK_NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    token = uuid.uuid4().hex
    while True:
        with open(path, "a+", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                holder = file.read().partition("\n")[0] or "another process"
                raise InputError(f"{folder}: in use by {holder}; wait for it or stop it") from None
            except OSError as error:
                # The file system has no locks.
                error.filename = str(path)
                raise
            # The holder before us may have removed the file between our opening and our locking it.
            if not path.exists() or not os.path.samestat(os.fstat(file.fileno()), path.stat()):
                continue
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}\n{token}")
            file.flush()
            os.fsync(file.fileno())  # Workers on other machines read it through a shared file system.
            try:
                yield token
            finally:
                path.unlink(missing_ok=True)
            return


def require_token(folder: Path, token: str) -> None:
    """Checks, where a shard is worked on, that the folder is the one the run holds.

    Raises:
        InputError: this machine sees another folder under that path, or another run has taken it over.
    """
    try:
        seen = (folder / _LOCK_NAME).read_text(encoding="utf-8").partition("\n")[2]
    except FileNotFoundError:
        seen = ""
    if seen != token:
        raise InputError(
            f"{folder}: is not held by this run, as {socket.gethostname()} sees it; "
            "use a folder on a file system that all machines share"
        )
