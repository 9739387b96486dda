"""The SHA-256 of a file that is being written, computed right behind the writer."""

import errno
import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

# Stays in the cache between reading and hashing.
_BLOCK_BYTES = 1 << 18


class FollowingHash:
    """Hashes a growing file in a thread of its own; a context manager that ends the thread.

    SHA-256 is slower than writing where the processor has no instructions for it, and its parts cannot be
    computed side by side: so it begins with the first bytes. What it reads is still in the page cache, which
    is also what holds the bytes when it falls behind.

    Args:
        path: of the file, which must exist when `follow` is first called. It must only be appended to.
    """

    def __init__(self, path: Path) -> None:
        self._path = Path(path)
        self._thread = ThreadPoolExecutor(1)
        self._digest = hashlib.sha256()
        self._block = memoryview(bytearray(_BLOCK_BYTES))
        self._hashed = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._thread.shutdown(cancel_futures=True)

    def follow(self, end: int) -> None:
        """Takes note that the bytes before `end` are written; returns at once."""
        self._thread.submit(self._hash_until, end)

    def finish(self, end: int) -> str:
        """Waits for the hash of the first `end` bytes, hexadecimal.

        Raises:
            OSError: the file cannot be read, or is shorter; with errno and its name.
        """
        self._thread.submit(self._hash_until, end).result()
        return self._digest.hexdigest()

    def _hash_until(self, end: int) -> None:
        """Goes on where it was; after a failure, which `finish` reports, the next call tries again."""
        if self._hashed >= end:
            return
        with open(self._path, "rb", buffering=0) as file:
            file.seek(self._hashed)
            while self._hashed < end:
                count = file.readinto(self._block[: min(_BLOCK_BYTES, end - self._hashed)])
                if not count:
                    raise OSError(errno.EIO, os.strerror(errno.EIO), str(self._path))
                self._digest.update(self._block[:count])
                self._hashed += count
