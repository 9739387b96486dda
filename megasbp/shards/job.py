"""What a worker is told: which function, on which folder, with which settings; and what it answers."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from megasbp.errors import InputError
from megasbp.storage import Manifest

# Writes the files of a shard into the folder it is given and returns the shard's facts. Called as
# work(shard, folder, **settings, **paths).
Work = Callable[..., Mapping[str, Any] | None]


@dataclass(frozen=True)
class Job:
    """A sharded stage, in values that JSON can hold: it crosses to other processes and machines.

    Attributes:
        work: "module:function", imported where the work is done.
        folder: holds one folder per shard; absolute.
        inputs: name of each input -> content hash.
        settings: keyword arguments that decide the bytes.
        paths: keyword arguments that say where the inputs lie; absolute.
        token: names the run that holds the folder (see `lock`).
        lasting: whether shards are hashed and forced to disk, so that a later run can trust them.
    """

    work: str
    folder: str
    inputs: dict[str, str]
    settings: dict[str, Any]
    paths: dict[str, str | list[str]]
    token: str
    lasting: bool = True

    def manifest(self, shard: int) -> Manifest:
        """The manifest of a shard before its files are known; its key decides whether a folder is ours."""
        return Manifest(self.work, self.inputs, {**self.settings, "shard": shard})

    def arguments(self) -> dict[str, Any]:
        """The keyword arguments of the function."""
        paths = {
            name: [Path(each) for each in value] if isinstance(value, list) else Path(value)
            for name, value in self.paths.items()
        }
        return {**self.settings, **paths}


@dataclass(frozen=True)
class Outcome:
    """How an attempt at a shard ended.

    Attributes:
        kind: "published"; "mistake", an InputError; "failed", any other exception; "full", no space left;
            "differs", two computations of the shard gave different bytes; "died", the worker is gone.
        text: what went wrong, in one line.
        traceback: of a failure.
        manifest: of the published shard, as in its file.
    """

    shard: int
    kind: Literal["published", "mistake", "failed", "full", "differs", "died"]
    text: str = ""
    traceback: str = ""
    manifest: dict[str, Any] | None = None


def absolute_paths(paths: Mapping[str, Path | Sequence[Path]]) -> dict[str, str | list[str]]:
    """Paths as a worker with another current folder can use them."""
    return {
        name: str(Path(value).absolute())
        if isinstance(value, str | Path)
        else [str(Path(each).absolute()) for each in value]
        for name, value in paths.items()
    }


def name_work(work: Work) -> str:
    """The "module:function" by which a worker finds the function.

    Raises:
        InputError: it cannot be found by name: a lambda, a nested function, or one of the script itself.
    """
    module, name = work.__module__, getattr(work, "__qualname__", "")
    found = None if module == "__main__" else getattr(importlib.import_module(module), name, None)
    if found is not work:
        raise InputError(
            f"{module}:{name}: workers cannot import it; move it to the top level of a module of its own"
        )
    return f"{module}:{name}"


def find_work(name: str) -> Work:
    """The function of a "module:function"."""
    module, _, function = name.partition(":")
    work: Work = getattr(importlib.import_module(module), function)
    return work
