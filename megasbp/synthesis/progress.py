"""The progress line of a synthesis run."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from megasbp.durations import clock
from megasbp.synthesis.ledger import Ledger

_SECONDS_BETWEEN_LINES = 10.0


@dataclass(frozen=True)
class SynthesisProgress:
    """How far a run is.

    Attributes:
        requests: documents generated, in published shards.
        documents: of these, accepted.
        tokens: accepted tokens, bos and eos included.
        need_tokens: accepted tokens wanted.
        tokens_per_second: tokens of finished documents per second, since this process began to generate.
        drops: filter -> documents dropped.
        seconds_left: estimate, None while nothing is known.
    """

    requests: int
    documents: int
    tokens: int
    need_tokens: int
    tokens_per_second: float
    drops: dict[str, int]
    seconds_left: float | None

    def __str__(self) -> str:
        parts = [
            f"synthesis: {self.tokens:,}/{self.need_tokens:,} tokens accepted",
            f"{self.documents:,}/{self.requests:,} documents",
        ]
        dropped = [
            f"{name} {count / self.requests:.1%}"
            for name, count in sorted(self.drops.items(), key=lambda item: -item[1])
            if count
        ]
        if dropped:
            parts.append(f"dropped {', '.join(dropped)}")
        if self.tokens_per_second:
            parts.append(f"{self.tokens_per_second:,.0f} tokens/s")
        if self.seconds_left is not None:
            parts.append(f"{clock(self.seconds_left)} left")
        return ", ".join(parts)


def print_progress(progress: SynthesisProgress) -> None:
    """Prints the line."""
    print(progress, flush=True)


class Meter:
    """Measures the speed of generation and reports now and then.

    Args:
        ledger: of the run; read, never changed.
        need_tokens: accepted tokens wanted.
        report: receives the progress; None for silence.
    """

    def __init__(
        self, ledger: Ledger, need_tokens: int, report: Callable[[SynthesisProgress], None] | None
    ) -> None:
        self.ledger, self.need_tokens, self._report = ledger, need_tokens, report
        self._start: float | None = None
        self._last_line = time.monotonic()
        self._generated = 0

    def start(self) -> None:
        """Generation begins now."""
        self._start = time.monotonic()

    def count(self, tokens: int) -> None:
        """So many drawn tokens are those of finished documents."""
        self._generated += tokens
        if time.monotonic() - self._last_line >= _SECONDS_BETWEEN_LINES:
            self.report()

    def report(self) -> None:
        """Reports now."""
        self._last_line = time.monotonic()
        if self._report is not None:
            self._report(self.progress())

    def progress(self) -> SynthesisProgress:
        """The state of the run."""
        ledger = self.ledger
        rate = self._generated / (time.monotonic() - self._start) if self._start and self._generated else 0.0
        left = None
        if ledger.tokens >= self.need_tokens:
            left = 0.0
        elif rate and ledger.tokens:
            # Each accepted token costs so many drawn ones.
            left = (self.need_tokens - ledger.tokens) * (ledger.generated_tokens / ledger.tokens) / rate
        return SynthesisProgress(
            ledger.requests, ledger.documents, ledger.tokens, self.need_tokens, rate, dict(ledger.drops), left
        )
