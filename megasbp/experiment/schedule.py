"""Which part, or which piece of one, may be begun next where several are made side by side."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from megasbp.experiment.part import Part


@dataclass(frozen=True)
class Task:
    """What one worker makes at a time.

    Attributes:
        part: what is made.
        piece: number of a piece of it, which is made alone; None for the whole part.
    """

    part: Part
    piece: int | None = None

    def __str__(self) -> str:
        return f"{self.part.name}{self.which}"

    @property
    def which(self) -> str:
        """Which piece, e.g. " (2 of 3)"; stages that pieces make have one name."""
        return "" if self.piece is None else f" ({self.piece + 1} of {len(self.part.pieces)})"


class Schedule:
    """Hands out tasks in the order of their parts, each part after those that it needs and its own pieces.

    Args:
        parts: each after those that it needs.
        finished: whether a part's stages are all there, as the disk has it when asked.
        kept: called with a part that was finished before.
        done: called with every part when it is finished, such a one too.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        finished: Callable[[Part], bool],
        kept: Callable[[Part], None],
        done: Callable[[Part], None],
    ) -> None:
        self._finished, self._kept, self._done = finished, kept, done
        self._order = {part.name: number for number, part in enumerate(parts)}
        self._waiting = list(parts)
        self._ready: list[Task] = []
        self._made: set[str] = set()
        # Name of a part -> how many of its pieces have not ended.
        self._pieces: dict[str, int] = {}

    def next(self) -> Task | None:
        """The first task that may be begun now; None where all wait for tasks that have not ended.

        Raises:
            InputError: a finished folder no longer holds what its manifest says.
        """
        self._release()
        if not self._ready:
            return None
        first = min(self._ready, key=lambda task: (self._order[task.part.name], task.piece or 0))
        self._ready.remove(first)
        return first

    def ended(self, task: Task) -> None:
        """A task is made."""
        if task.piece is None:
            self._finish(task.part)
        else:
            self._pieces[task.part.name] -= 1

    def _release(self) -> None:
        """Readies what waits for nothing any more; of a part that is finished there is nothing to make."""
        for part in list(self._waiting):
            begun = part.name in self._pieces
            if self._pieces[part.name] if begun else not self._made.issuperset(part.needs):
                continue
            if self._finished(part):
                if not begun:
                    self._kept(part)
                self._finish(part)
            elif part.pieces and not begun:
                self._pieces[part.name] = len(part.pieces)
                self._ready += [Task(part, piece) for piece in range(len(part.pieces))]
                continue
            else:
                self._ready.append(Task(part))
            self._waiting.remove(part)

    def _finish(self, part: Part) -> None:
        self._made.add(part.name)
        self._done(part)
