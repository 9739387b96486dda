"""`megasbp run --jobs N`: a recipe's parts side by side in several processes of one machine."""

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from megasbp.errors import InputError
from megasbp.experiment.part import Part
from megasbp.experiment.part_pool import PartPool
from megasbp.experiment.parts import parts_until
from megasbp.experiment.plan import plan
from megasbp.experiment.recipe import Recipe
from megasbp.experiment.run import Finished, require_inputs
from megasbp.experiment.schedule import Schedule
from megasbp.shards.lock import folder_lock


def run_side_by_side(
    recipe: Recipe,
    path: Path,
    overrides: Sequence[str],
    jobs: int,
    announce: Callable[[str], None],
    announce_plan: Callable[[dict[str, Any]], None],
    until: Sequence[str] | None = None,
    variant: Path | None = None,
) -> None:
    """As `run_experiment`, by several workers. This process computes nothing, and uses no GPU.

    Args:
        path, overrides: what the recipe was read from; every worker reads it for itself.
        jobs: how many workers.
        announce: receives one line per part that was finished before; the workers print their own.
        variant: see `Method`.

    Raises:
        InputError, ShardError, OSError: as `run_experiment`; of the last, where there is no room on the disk.
        StageError: a worker died, or failed as nobody expected; the message names its part.
    """
    wanted = parts_until(recipe, until)
    require_inputs(recipe, wanted)
    opening = {
        "recipe": str(path),
        "overrides": list(overrides),
        "hash": recipe.hash,
        "variant": None if variant is None else str(variant),
    }

    with folder_lock(recipe.folder), _stoppable(), PartPool(jobs, opening) as pool:

        def done(part: Part) -> None:
            if part.name == "corpus":
                planned = plan(recipe)
                with pool.speaking:
                    announce_plan(planned)

        run_parts(wanted, pool, Finished(recipe), announce, done)


def run_parts(
    parts: Sequence[Part],
    pool: PartPool,
    finished: Callable[[Part], bool],
    announce: Callable[[str], None],
    done: Callable[[Part], None],
) -> None:
    """Makes parts until all are finished. After a failure none is begun, and those that are made end first.

    Args:
        parts: each after those that it needs.
        finished, done: as of `Schedule`.

    Raises:
        Exception: the first failure.
    """

    def say(line: str) -> None:
        with pool.speaking:
            announce(line)

    schedule = Schedule(parts, finished, lambda part: say(f"{part.name}: done before, kept"), done)
    failure: Exception | None = None
    while True:
        try:
            while failure is None and pool.has_room() and (task := schedule.next()) is not None:
                pool.submit(task)
        except InputError as damage:
            failure = damage
        if not pool.working:
            break
        for task, error in pool.wait():
            if error is None:
                schedule.ended(task)
                continue
            if failure is not None:
                say(f"{task}: failed too; {error}")
            elif pool.working:
                # They may take hours, and only at the end is the first failure said in full.
                say(f"{task}: failed; nothing else is begun, still made: {', '.join(map(str, pool.working))}")
            failure = failure or error
    if failure is not None:
        raise failure


@contextmanager
def _stoppable() -> Iterator[None]:
    """Makes SIGTERM an exception, so that the workers are told and waited for."""

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
