"""Runs synthesis in processes of its own, some of which are killed. Started by test_synthesis_processes.py.

Children are forked before any computation, so that each is a fresh process without a second start of Python.
"""

import itertools
import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from synthesis_world import CONFIG, file_hashes, make_engine, make_requests, open_seeds, run, tiny_model

# Longer than two hundred killed runs get.
NEED_OF_MANY = 40_000


def in_child(work: Callable[[], object]) -> int:
    """Process id of a child that does `work` and exits with 0, or 1 when it raises."""
    process = os.fork()
    if process == 0:
        try:
            torch.set_num_threads(1)
            work()
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    return process


def was_killed(process: int) -> bool:
    """Waits for a child; whether SIGKILL ended it."""
    status = os.waitpid(process, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the child failed"
    return os.WIFSIGNALED(status)


def synthesize_in(folder: Path) -> None:
    """A whole run, as an uninterrupted process makes it."""
    run(folder / "corpus", tiny_model(), open_seeds(folder))


def synthesize_until(call: int, folder: Path) -> None:
    """A run that is killed right before its `call`-th step of publication (fsync, rename, replace)."""
    calls = itertools.count(1)

    def deadly(function: Callable) -> Callable:
        def wrapped(*arguments: object) -> object:
            if next(calls) == call:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments)

        return wrapped

    for name in ("fsync", "rename", "replace"):
        setattr(os, name, deadly(getattr(os, name)))
    synthesize_in(folder)


def kill_at_publication_steps(folder: Path) -> int:
    """Kills each run three steps later than the last, until one gets through; the number of kills."""
    for kills in itertools.count():
        if not was_killed(in_child(lambda kills=kills: synthesize_until(1 + 3 * kills, folder))):
            return kills


def kill_at_random_times(folder: Path) -> int:
    """Kills runs after ever longer times, until one gets through; the number of kills."""
    delays = random.Random(0)
    for kills in itertools.count():
        process = in_child(lambda: synthesize_in(folder))
        time.sleep(delays.uniform(0.1, 0.3) * (kills + 1))
        os.kill(process, signal.SIGKILL)
        if not was_killed(process):
            return kills


def kill_many_times(folder: Path, kills: int) -> dict[str, int]:
    """Kills one run after another at random moments, then lets one end.

    After each kill, the shards that were published are still there; only what was unfinished is lost. The
    moments are measured in what this machine, with its other work, takes to publish the first shard.
    """
    delays, survived, lost = random.Random(1), set[str](), 0
    first = seconds_to_first_shard(folder) if kills else 0.0
    for number in range(kills):
        process = in_child(lambda: synthesize_many_shards(folder))
        time.sleep(delays.uniform(0.3, 1.3) * first)
        os.kill(process, signal.SIGKILL)
        assert was_killed(process), f"the run ended after {number} kills; make it longer"
        published = published_shards(folder)
        lost += len(survived - published)
        survived = published
    assert not was_killed(in_child(lambda: synthesize_many_shards(folder)))
    return {"kills": kills, "lost": lost, "published_by_the_killed": len(survived)}


def published_shards(folder: Path) -> set[str]:
    """Names of the shards that are there, whole."""
    names = (path.parent.name for path in (folder / "corpus" / "shards").glob("*/manifest.json"))
    return {name for name in names if name.removeprefix("shard-").isdigit()}


def seconds_to_first_shard(folder: Path) -> float:
    """How long a run takes until its first shard is published; it is killed then, and leaves nothing."""
    place = folder.with_name(f"{folder.name}-timed")
    place.mkdir()
    start, process = time.monotonic(), in_child(lambda: synthesize_many_shards(place))
    while not published_shards(place):
        time.sleep(0.01)
    seconds = time.monotonic() - start
    os.kill(process, signal.SIGKILL)
    assert was_killed(process)
    shutil.rmtree(place)
    return seconds


def synthesize_many_shards(folder: Path) -> None:
    """A whole run of many shards of eight documents."""
    config = CONFIG.model_copy(update={"shard_documents": 8, "drop_duplicates": False})
    run(folder / "corpus", tiny_model(), open_seeds(folder), config=config, need_tokens=NEED_OF_MANY)


def generate_part(folder: Path, part: int, parts: int) -> None:
    """Every `parts`-th of forty documents, written to a file."""
    completions = make_engine(tiny_model()).generate(make_requests(40)[part::parts], 24)
    rows = [[completion.finish_reason, *completion.tokens.tolist()] for completion in completions]
    (folder / f"part-{part}-of-{parts}.json").write_text(json.dumps(rows))


def main() -> None:
    """Writes report.json into the folder named on the command line.

    A number behind it asks for that many random kills of a run of many small shards, and nothing else.
    """
    folder = Path(sys.argv[1])
    report: dict[str, Any] = {}
    if len(sys.argv) > 2:
        for name, kills in (("killed", int(sys.argv[2])), ("whole", 0)):
            (folder / name).mkdir()
            report[name] = kill_many_times(folder / name, kills)
            report[name]["files"] = file_hashes(folder / name / "corpus")
        (folder / "report.json").write_text(json.dumps(report))
        return
    for part, parts in ((0, 1), (0, 2), (1, 2)):
        assert not was_killed(in_child(lambda part=part, parts=parts: generate_part(folder, part, parts)))
    ways = {"whole": lambda place: None, "steps": kill_at_publication_steps, "times": kill_at_random_times}
    for name, kill in ways.items():
        place = folder / name
        place.mkdir()
        kills = kill(place)
        # Once more: after the kills this is a rerun of a finished run, which must change nothing.
        assert not was_killed(in_child(lambda place=place: synthesize_in(place)))
        report[name] = {"kills": kills, "files": file_hashes(place / "corpus")}
    (folder / "report.json").write_text(json.dumps(report))


if __name__ == "__main__":
    np.seterr(all="raise")
    main()
