"""The greedy walk under the caps of a pair table: C++ beside dictionaries in Python.

Candidates: 20 of each document, targets drawn so that some documents are hubs; caps of 8 and 8.
"""

import argparse
from pathlib import Path

from benchmarks.measuring import OURS, Measure, Side, fresh_process, interleave

PACKAGES = ("megasbp", "numpy")
_PYTHON = "plain Python"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of this subject."""
    parser.add_argument("--candidates", type=int, default=1_000_000, help="for both sides (%(default)s)")
    parser.add_argument("--largest", type=int, default=10_000_000, help="for C++ alone (%(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="of both sides (%(default)s)")


def measure(options: argparse.Namespace, scratch: Path) -> list[Measure]:
    """Every measure of this subject."""
    return [
        *_caps(options.candidates, {OURS: "native", _PYTHON: "plain"}, options.repeats),
        *_caps(options.largest, {OURS: "native"}, 1),
    ]


def _caps(candidates: int, sides: dict[str, str], repeats: int) -> list[Measure]:
    seconds = {
        OURS: Side(note="core.cap_pairs, one thread"),
        _PYTHON: Side(note="np.lexsort, then a walk with dictionaries"),
    }
    memory = {name: Side(note="above what the candidates take") for name in sides}
    kept: set[int] = set()

    def run(name: str) -> float:
        result = fresh_process("benchmarks.pair_caps_processes", sides[name], str(candidates))
        memory[name].values.append(result["bytes"])
        kept.add(result["kept"])
        return result["seconds"]

    runs = {name: (lambda name=name: run(name)) for name in sides}
    for name, values in interleave(runs, repeats, warm_up=0).items():
        seconds[name].values = values
    assert len(kept) == 1, f"the sides keep different pairs: {kept}"
    seconds[OURS].facts = {"kept": kept.pop()}
    title = f"caps over {candidates:,} candidates"
    return [
        Measure(title, "s", False, {name: seconds[name] for name in sides}),
        Measure(f"{title}, peak memory", "bytes", False, memory),
    ]
