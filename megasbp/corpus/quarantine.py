"""Bad documents are counted and set aside; only too large a share of them stops a run."""

import json
from collections import Counter
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from megasbp.errors import InputError
from megasbp.storage import publishing_file

# A share is not judged before this many documents, except at the end.
_JUDGED_FROM = 100
_DETAIL_CHARACTERS = 200


@dataclass(frozen=True)
class Position:
    """Where a document stands.

    Attributes:
        file: its path, as the corpus names it.
        line: number in a file of lines, from 1.
        row: number in a Parquet file, from 0.
        offset: of the line's first byte in the file, after decompression.
    """

    file: str
    line: int | None = None
    row: int | None = None
    offset: int | None = None

    def __str__(self) -> str:
        parts = [f"{name} {value}" for name, value in list(asdict(self).items())[1:] if value is not None]
        return ", ".join([self.file, *parts])


class Quarantine:
    """Counts good and bad documents of one reading and writes the bad ones' places and reasons.

    Args:
        folder: gets `quarantine.jsonl`, one object per bad document: file, line, row, offset, reason, detail.
            Published at the end of the reading, or when it is stopped by the share of bad documents.
        maximum_share: bad documents over all, in [0, 1]; judged from 100 documents on and at the end.
    """

    def __init__(self, folder: Path, maximum_share: float) -> None:
        self.path = Path(folder) / "quarantine.jsonl"
        self.maximum_share = maximum_share
        self.accepted = 0
        self.reasons: Counter[str] = Counter()
        self._stack = ExitStack()
        self._file: TextIO | None = None
        self._closed = False

    @property
    def rejected(self) -> int:
        """Bad documents so far."""
        return self.reasons.total()

    def accept(self, documents: int = 1) -> None:
        """Counts good documents."""
        self.accepted += documents
        self._judge()

    def reject(self, position: Position, reason: str, detail: str = "") -> None:
        """Counts and records a bad document.

        Raises:
            InputError: the share of bad documents exceeds the maximum.
        """
        self.reasons[reason] += 1
        record = {**asdict(position), "reason": reason, "detail": detail[:_DETAIL_CHARACTERS]}
        # ASCII, because a bad document's detail may hold what is not Unicode.
        self._open().write(json.dumps(record) + "\n")
        self._judge()

    def close(self) -> None:
        """Publishes the file, also when nothing is bad, and judges the share once more; again: does nothing.

        Raises:
            InputError: the share of bad documents exceeds the maximum.
        """
        if not self._closed:
            self._publish()
            self._judge(final=True)

    def discard(self) -> None:
        """Ends an interrupted reading: nothing is published."""
        if not self._closed:
            self._closed = True
            # publishing_file publishes unless its block is left by an exception.
            with suppress(InterruptedError), self._stack:
                raise InterruptedError("reading ended early")

    def summary(self) -> dict[str, Any]:
        """Counts: {"accepted", "rejected", "reasons": {reason: count}}."""
        return {
            "accepted": self.accepted,
            "rejected": self.rejected,
            "reasons": dict(sorted(self.reasons.items())),
        }

    def _open(self) -> TextIO:
        if self._closed:
            raise ValueError(f"{self.path}: this quarantine is closed; make one for each reading")
        if self._file is None:
            partial = self._stack.enter_context(publishing_file(self.path))
            self._file = self._stack.enter_context(partial.open("w", encoding="utf-8"))
        return self._file

    def _publish(self) -> None:
        self._open()
        self._closed = True
        self._stack.close()

    def _judge(self, final: bool = False) -> None:
        problem = share_problem(self.accepted, self.reasons, self.maximum_share, final)
        if problem is None:
            return
        if not self._closed:
            self._publish()
        raise InputError(
            f"{problem}, above corpus.maximum_bad_share {self.maximum_share}; {self.path} lists them: mend "
            "the files or the names of the fields, or raise the share"
        )


def share_problem(accepted: int, reasons: Counter[str], maximum: float, final: bool) -> str | None:
    """How many of the documents are bad, where they are too many; else None.

    Args:
        accepted: good documents so far.
        reasons: bad ones by what is wrong with them.
        maximum: bad documents over all, in [0, 1]; judged from 100 documents on and at the end.
        final: whether this is the end.
    """
    rejected = reasons.total()
    seen = accepted + rejected
    if seen == 0 or (seen < _JUDGED_FROM and not final) or rejected / seen <= maximum:
        return None
    return f"{rejected:,} of {seen:,} documents are bad ({counted(reasons)})"


def counted(reasons: Counter[str]) -> str:
    """Reasons with their counts, the most frequent first."""
    return ", ".join(f"{count:,} {reason}" for reason, count in reasons.most_common())
