"""How things are timed: sides in turn, medians, fresh processes."""

import importlib.util
import json
import math
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
        facts: what else came out of it: the setting that a search chose, counts.
    """

    values: list[float] = field(default_factory=list)
    missing: str = ""
    note: str = ""
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def median(self) -> float:
        return statistics.median(self.values)


@dataclass
class Measure:
    """One quantity, measured on several sides in one run.

    Attributes:
        unit: "tokens/s", "s", "bytes", ...; "" for shares of one, such as recall.
        higher_is_better: False for times and memory.
        sides: name -> side; names that begin with "megasbp" are ours, and the first of them is compared.
        target_ratios: side -> how many times better than it ours must be.
        target_limit: what ours must not be worse than, in the unit; None for no such target.
    """

    name: str
    unit: str
    higher_is_better: bool
    sides: dict[str, Side]
    target_ratios: dict[str, float] = field(default_factory=dict)
    target_limit: float | None = None

    def ratio(self, side: str) -> float | None:
        """How many times better our median is than a side's; None where one of them did not run."""
        ours, other = self.ours, self.sides[side]
        if not ours.values or not other.values:
            return None
        return times_better(ours.median, other.median, self.higher_is_better)

    @property
    def ours(self) -> Side:
        return next(side for name, side in self.sides.items() if name.startswith(OURS))

    @property
    def met(self) -> bool | None:
        """Whether every target is met; None without a target, or where the side of one is missing and the
        others are met."""
        verdicts = [self.ratio_met(side) for side in self.target_ratios]
        if self.target_limit is not None:
            verdicts.append(self.limit_met)
        if False in verdicts:
            return False
        return None if not verdicts or None in verdicts else True

    def ratio_met(self, side: str) -> bool | None:
        """Whether the ratio to one side is what `target_ratios` asks for; None where a side did not run."""
        ratio = self.ratio(side)
        return None if ratio is None else ratio >= self.target_ratios[side]

    @property
    def limit_met(self) -> bool | None:
        """Whether ours is within `target_limit`; None where ours did not run."""
        if self.target_limit is None or not self.ours.values:
            return None
        sign = 1 if self.higher_is_better else -1
        return sign * self.ours.median >= sign * self.target_limit


def times_better(value: float, other: float, higher_is_better: bool) -> float:
    """How many times better one value is than another; 0 where less is better is infinitely better than 1."""
    more, less = (value, other) if higher_is_better else (other, value)
    if less == 0:
        return 1.0 if more == 0 else math.inf
    return more / less


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


def not_installed(module: str, package: str) -> str:
    """Empty, or what has to be done to have a tool that is compared with."""
    if importlib.util.find_spec(module) is not None:
        return ""
    return f"{package} is not installed: make peers, or pip install {package}"


def fresh_process(
    module: str,
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    seconds: float | None = None,
) -> dict[str, Any]:
    """Runs `python -m module arguments` from the clone; the last line that it prints is a JSON object.

    Args:
        environment: variables to set beside those of this process.
        seconds: that it may take; None for any.

    Raises:
        RuntimeError: it failed, and the message ends with what it printed, or it took too long.
    """
    path = os.pathsep.join([str(ROOT), *sys.path])
    try:
        result = subprocess.run(
            [sys.executable, "-m", module, *arguments],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": path, **(environment or {})},
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"{module} took longer than {seconds:g} s") from None
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
