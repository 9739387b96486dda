"""How things are timed: sides in turn, medians, fresh processes."""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
OURS = "megasbp"


@dataclass
class Side:
    """What one tool reached.

    Attributes:
        values: one per repeat, in the measure's unit; empty when the tool could not run.
        missing: why it could not, and the mend.
        note: what exactly ran.
    """

    values: list[float] = field(default_factory=list)
    missing: str = ""
    note: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.values)


@dataclass
class Measure:
    """One quantity, measured on several sides in one run.

    Attributes:
        unit: "tokens/s", "s", "bytes", ...
        higher_is_better: False for times and memory.
        sides: name -> side; names that begin with "megasbp" are ours, and the first of them is compared.
        target_ratio: how many times better than `target_side` ours must be; None for no such target.
        target_limit: what ours must not be worse than, in the unit; None for no such target.
    """

    name: str
    unit: str
    higher_is_better: bool
    sides: dict[str, Side]
    target_side: str = ""
    target_ratio: float | None = None
    target_limit: float | None = None

    def ratio(self, side: str) -> float | None:
        """How many times better our median is than a side's; None where one of them did not run."""
        ours, other = self.ours, self.sides[side]
        if not ours.values or not other.values:
            return None
        return ours.median / other.median if self.higher_is_better else other.median / ours.median

    @property
    def ours(self) -> Side:
        return next(side for name, side in self.sides.items() if name.startswith(OURS))

    @property
    def met(self) -> bool | None:
        """Whether every target is met; None without a target, or where a side is missing."""
        verdicts = []
        if self.target_ratio is not None:
            ratio = self.ratio(self.target_side)
            verdicts.append(None if ratio is None else ratio >= self.target_ratio)
        if self.target_limit is not None:
            sign = 1 if self.higher_is_better else -1
            verdicts.append(sign * self.ours.median >= sign * self.target_limit)
        return None if not verdicts or None in verdicts else all(verdicts)


def interleave(
    sides: Mapping[str, Callable[[], float]], repeats: int, warm_up: int = 1
) -> dict[str, list[float]]:
    """Asks each side for a value in turn, `repeats` times, after `warm_up` rounds that do not count.

    Neighbours on the machine then disturb all sides alike.
    """
    values: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(warm_up + repeats):
        for name, run in sides.items():
            value = run()
            if number >= warm_up:
                values[name].append(value)
    return values


def rate(work: float, run: Callable[[], Any]) -> Callable[[], float]:
    """A side that does `work` units: units per second."""

    def timed() -> float:
        start = time.perf_counter()
        run()
        return work / (time.perf_counter() - start)

    return timed


def fresh_process(module: str, *arguments: str) -> dict[str, Any]:
    """Runs `python -m module arguments` from the clone; the last line that it prints is a JSON object.

    Raises:
        RuntimeError: it failed; the message ends with what it printed.
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    result = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode != 0:
        raise RuntimeError(f"{module} {' '.join(arguments)} failed:\n{result.stdout}{result.stderr}")
    return json.loads(result.stdout.splitlines()[-1])


def peak_memory() -> int:
    """The largest resident size of this process so far, in bytes (Linux).

    Not getrusage: across exec its maximum carries over what the parent held.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/status has no VmHWM; peak memory is measured on Linux only")
