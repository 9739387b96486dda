"""The progress line of a sharded stage."""

import time
from collections.abc import Callable

from megasbp.durations import clock

_SECONDS_BETWEEN_LINES = 10.0


def print_line(text: str) -> None:
    """Prints a line at once."""
    print(text, flush=True)


class ShardProgress:
    """Counts finished shards and says so now and then.

    Args:
        name: of the work.
        total: shards of the stage.
        kept: of these, made by an earlier run.
        announce: receives the lines; None for silence.
        counts: whether to say how many are done; what else there is to say, is said in any case.
    """

    def __init__(
        self,
        name: str,
        total: int,
        kept: int,
        announce: Callable[[str], None] | None,
        counts: bool = True,
    ) -> None:
        self._name, self._total, self._kept, self._announce = name, total, kept, announce
        self._counts = counts
        self._made = 0
        self._start = self._last_line = time.monotonic()
        if kept and counts:
            self.say(f"{kept:,} of {total:,} shards done before, kept")

    def say(self, text: str) -> None:
        """Announces a line at once."""
        if self._announce is not None:
            self._announce(f"{self._name}: {text}")

    def count(self) -> None:
        """A shard is published."""
        self._made += 1
        if not self._counts:
            return
        now = time.monotonic()
        finished = self._kept + self._made == self._total
        if finished or now - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = now
            self.say(self._line(now - self._start))

    def _line(self, elapsed: float) -> str:
        done = self._kept + self._made
        rate = self._made / max(elapsed, 1e-9)
        speed = f"{rate:,.1f} shards/s" if rate >= 1 else f"{1 / rate:,.1f} s a shard"
        return f"{done:,}/{self._total:,} shards, {speed}, {clock((self._total - done) / rate)} left"
