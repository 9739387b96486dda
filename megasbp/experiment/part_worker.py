"""The process that makes parts of a recipe for `megasbp run --jobs`.

It is told the recipe, then one task after the other, and answers each with how it failed, if it did. A null
ends it.
"""

import gc
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from megasbp.errors import NO_ROOM, NOT_ALLOWED, InputError, ShardError, StageError
from megasbp.experiment.parts import find_part
from megasbp.experiment.recipe import load_recipe
from megasbp.experiment.run import make_part, start_runtime
from megasbp.experiment.schedule import Task
from megasbp.shards.process import MainProcess
from megasbp.shards.progress import print_line

# Failures that the command line tells from others.
_KINDS: tuple[type[Exception], ...] = (InputError, ShardError, StageError)


def serve(descriptor: int) -> None:
    """Works until it is told to end; dies with its whole process group when the main process is gone.

    Args:
        descriptor: of the pipe to the main process.
    """
    main = MainProcess(descriptor)
    opening = main.receive()
    maker: _Maker | None = None
    while (task := main.receive()) is not None:
        try:
            maker = maker or _Maker(**opening)
            maker.make(**task)
        except Exception as error:
            main.send({"failure": _told(error, task["part"])})
        else:
            main.send({"failure": None})


def raisable(failure: dict[str, Any]) -> Exception:
    """What a worker failed with, in the main process."""
    if "errno" in failure:
        return OSError(failure["errno"], failure["message"], failure["file"])
    (kind,) = (kind for kind in _KINDS if kind.__name__ == failure["kind"])
    return kind(failure["message"])


class _Maker:
    """The recipe as this process has read it, and where it computes."""

    def __init__(self, recipe: str, overrides: Sequence[str], hash: str, variant: str | None) -> None:
        self._recipe = load_recipe(Path(recipe), overrides)
        if self._recipe.hash != hash:
            raise InputError(f"{recipe}: was changed while it was run; run the same command again")
        self._runtime = start_runtime(self._recipe)
        self._variant = None if variant is None else Path(variant)

    def make(self, part: str, piece: int | None) -> None:
        task = Task(find_part(self._recipe, part), piece)
        make_part(
            self._recipe,
            task.part,
            self._runtime,
            lambda line: print_line(line + task.which),
            piece,
            self._variant,
        )
        # While this worker waits, the others may need the memory of the GPU that it has kept for itself.
        gc.collect()
        torch.cuda.empty_cache()


def _told(error: Exception, part: str) -> dict[str, Any]:
    """The failure as JSON says it; one that nobody expected is printed whole, here where it happened."""
    for kind in _KINDS:
        if isinstance(error, kind):
            return {"kind": kind.__name__, "message": str(error)}
    if isinstance(error, OSError) and error.errno in NO_ROOM | NOT_ALLOWED:
        file = None if error.filename is None else str(error.filename)
        return {"errno": error.errno, "message": error.strerror, "file": file}
    traceback.print_exception(error)
    message = f"{part}: failed with {type(error).__name__}; its lines above say where"
    return {"kind": StageError.__name__, "message": message}
