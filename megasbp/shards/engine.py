"""Runs a function over shards: what is there is kept, what fails is begun again, what is done is published.

The bytes of a shard are the function's business alone: neither the engine, nor the number of workers, nor
the order in which they end changes them.
"""

import json
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, Self

from megasbp.errors import InputError, ShardError
from megasbp.shards.config import ShardsConfig
from megasbp.shards.inline import InlinePool
from megasbp.shards.job import Job, Outcome, Work, absolute_paths, name_work
from megasbp.shards.local import LocalPool
from megasbp.shards.lock import folder_lock
from megasbp.shards.progress import ShardProgress, print_line
from megasbp.shards.publication import published_shard, remove_leftovers
from megasbp.shards.ray_engine import RayPool
from megasbp.storage import Manifest

_SECONDS_BETWEEN_LOOKS = 0.5


class _Pool(Protocol):
    def __enter__(self) -> Self: ...
    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None: ...
    def has_room(self) -> bool: ...
    def submit(self, shard: int) -> None: ...
    def wait(self, seconds: float) -> list[Outcome]: ...


def run_shards(
    work: Work,
    shards: Iterable[int],
    folder: Path,
    *,
    settings: Mapping[str, Any],
    inputs: Mapping[str, str],
    paths: Mapping[str, Path | Sequence[Path]] | None = None,
    config: ShardsConfig,
    lasting: bool = True,
    announce: Callable[[str], None] | None = print_line,
    finished: Callable[[int, Manifest, bool], None] | None = None,
) -> list[Manifest]:
    """Makes the shards that are not there yet, each in `folder`/shard-NNNNNN with its manifest.

    A shard that is there, whole and made from the same inputs with the same settings by the same function, is
    kept. A run that was killed goes on where it was. On an error the shards under way are thrown away and the
    published ones stay.

    Args:
        work: a function at the top level of a module. work(shard, folder, **settings, **paths) writes the
            shard's files into the empty folder it is given, and returns its facts, or None. Files and facts
            must be the same whenever it is called with the same arguments: no times, no machine names.
        shards: numbers of the shards, >= 0, each once.
        folder: of the shards. Only one run at a time may write it.
        settings: what decides the bytes beside the inputs; JSON-serialisable.
        inputs: name of each input -> content hash.
        paths: where the inputs lie; they reach `work` as absolute Path objects and are no part of the key.
        config: where and how many at a time.
        lasting: False for a temporary folder, which this run removes: its shards are neither hashed nor
            forced to disk.
        announce: receives one line now and then, and one per attempt that failed; None for silence.
        finished: called with each shard, its manifest and whether it was made now: first those that were
            there, then the others as they end. What it raises stops the run. How far the run is, is then left
            to it to say.

    Returns:
        The manifests, in the order of `shards`.

    Raises:
        InputError: `work` raised one (it is not tried again); the disk is full; a folder was made with other
            settings or is damaged; another run holds the folder; the engine is not to be had. The message
            names the shard.
        ShardError: a shard failed, or its worker died, `config.attempts` times; or it came out differently
            when it was computed twice.
    """
    numbers = list(shards)
    assert len(set(numbers)) == len(numbers) and all(number >= 0 for number in numbers)
    absolute = absolute_paths(paths or {})
    assert not {"shard", "folder"} & {*settings, *absolute} and not settings.keys() & absolute.keys()
    folder = Path(folder).absolute()
    name = name_work(work)
    with folder_lock(folder) as token:
        # Through JSON and back: what `work` gets and what a manifest read again holds are the same values.
        values = json.loads(json.dumps(dict(settings)))
        job = Job(name, str(folder), dict(inputs), values, absolute, token, lasting)
        remove_leftovers(folder)
        done = {
            number: manifest for number in numbers if (manifest := published_shard(job, number)) is not None
        }
        if finished is not None:
            for number, manifest in done.items():
                finished(number, manifest, False)
        progress = ShardProgress(
            name.rpartition(":")[2], len(numbers), len(done), announce, counts=finished is None
        )
        missing = deque(number for number in numbers if number not in done)
        if missing:
            try:
                with _open_pool(job, config) as pool:
                    for number, manifest in _make_missing(pool, missing, config.attempts, progress):
                        done[number] = manifest
                        if finished is not None:
                            finished(number, manifest, True)
            finally:
                remove_leftovers(folder)
        return [done[number] for number in numbers]


def _open_pool(job: Job, config: ShardsConfig) -> _Pool:
    match config.engine:
        case "inline":
            return InlinePool(job)
        case "local":
            return LocalPool(job, config)
        case "ray":
            return RayPool(job, config)


def _make_missing(
    pool: _Pool, missing: deque[int], attempts: int, progress: ShardProgress
) -> Iterator[tuple[int, Manifest]]:
    """Yields the missing shards and their manifests as they are published."""
    failures: Counter[int] = Counter()
    running = 0
    while missing or running:
        while missing and pool.has_room():
            pool.submit(missing.popleft())
            running += 1
        for outcome in pool.wait(_SECONDS_BETWEEN_LOOKS):
            running -= 1
            if outcome.manifest is not None:
                progress.count()
                yield outcome.shard, Manifest(**outcome.manifest)
                continue
            failures[outcome.shard] += 1
            _raise_unless_retried(outcome, failures[outcome.shard], attempts)
            progress.say(
                f"shard {outcome.shard}: {outcome.text}; attempt {failures[outcome.shard]} of {attempts}, "
                "begun again"
            )
            # First of all, so that a shard that always fails stops the run early.
            missing.appendleft(outcome.shard)


def _raise_unless_retried(outcome: Outcome, failures: int, attempts: int) -> None:
    text = f"shard {outcome.shard}: {outcome.text}"
    if outcome.kind == "mistake":
        raise InputError(text)
    if outcome.kind == "full":
        raise InputError(f"{text}; free some and run again: finished shards are kept")
    if outcome.kind == "differs":
        raise ShardError(f"{text}; the work must depend on nothing but its arguments")
    if failures >= attempts:
        raise ShardError(f"{text}; given up after {failures} attempts\n{outcome.traceback}".rstrip())
