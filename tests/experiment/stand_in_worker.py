"""Stands in for `megasbp.experiment.part_worker`: does as the test says, and loads no libraries."""

import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

from megasbp.shards.process import MainProcess


def serve(descriptor: int) -> None:
    main = MainProcess(descriptor)
    opening = main.receive()
    folder = Path(opening["folder"])
    signal.signal(signal.SIGTERM, lambda number, frame: _stop(folder, frame))
    while (task := main.receive()) is not None:
        name = task["part"] + ("" if task["piece"] is None else f".{task['piece']}")
        _note(folder, f"begin {name}")
        failure = None
        for step in opening["does"].get(name, ()):
            failure = _make(folder, step)
        _note(folder, f"end {name}")
        main.send({"failure": failure})


def _make(folder: Path, what: str) -> Any:
    verb, _, argument = what.partition(" ")
    match verb:
        case "sees":
            _wait_for(folder, argument)
        case "fails":
            return {"kind": "InputError", "message": argument}
        case "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        case "speaks":
            for letter in argument * 40:
                sys.stdout.write(letter)
                time.sleep(0.001)
            print()
        case "sleeps":
            time.sleep(60)
        case "ignores":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            _note(folder, "ignores")
            time.sleep(float(argument))
    return None


def _note(folder: Path, line: str) -> None:
    with open(folder / "log", "a", encoding="utf-8") as log:
        log.write(f"{line}\n")


def _wait_for(folder: Path, start: str) -> None:
    end = time.monotonic() + 60
    while not any(line.startswith(start) for line in (folder / "log").read_text().splitlines()):
        assert time.monotonic() < end, f"{start} did not come"
        time.sleep(0.02)


def _stop(folder: Path, frame: FrameType | None) -> None:
    """As training does: what must be written is written, then it ends."""
    time.sleep(0.3)
    _note(folder, "stopped cleanly")
    raise SystemExit(143)
