"""A stage is a function from inputs to a folder; a rerun does only what is missing or changed.

A stage's folder is named by the hash of what its outputs depend on, so a changed recipe never overwrites an
earlier result, and going back to an old setting finds it again. A folder without a manifest is unfinished
work: the same stage with the same key continues in it.
"""

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megasbp.errors import InputError
from megasbp.parallel.runtime import Runtime
from megasbp.storage import MANIFEST_NAME, Manifest, publish_manifest, read_manifest, remove_partials

# Raised when the bytes that stages write change meaning: old folders must not be taken for new ones.
FORMAT_VERSION = 1


@dataclass(frozen=True)
class StageResult:
    """A finished stage: its folder and manifest."""

    folder: Path
    manifest: Manifest

    @property
    def facts(self) -> dict[str, Any]:
        """Small results that later stages read."""
        return self.manifest.facts

    @property
    def digest(self) -> str:
        """Hash of what the folder holds."""
        return self.manifest.digest


class MissingStage(InputError):
    """A stage was needed but building is not allowed here (see `Workspace.build`)."""


class Reached(Exception):
    """The stage that was asked for is finished."""


class Workspace:
    """The stages below one run's folder.

    Args:
        root: the run's folder.
        announce: receives one line per stage.
        build: False refuses to build missing stages (raises MissingStage): for commands that only read.
        runtime: all ranks make a stage together, the first one publishes it; None for one process.
        until: name of a stage, with or without its folder; raises `Reached` when it is finished.
    """

    def __init__(
        self,
        root: Path,
        announce: Callable[[str], None] = print,
        build: bool = True,
        runtime: Runtime | None = None,
        until: str | None = None,
    ) -> None:
        self.root = Path(root)
        self._runtime = runtime
        self.build = build
        self.used: list[Path] = []
        self.announce = announce
        self._until = until

    def stage(
        self,
        name: str,
        *,
        inputs: Mapping[str, "StageResult | str"],
        settings: Mapping[str, Any],
        make: Callable[[Path], Mapping[str, Any] | None],
        ignore: tuple[str, ...] = (),
    ) -> StageResult:
        """Returns the finished stage, making it first if it is not there.

        Args:
            name: stage name, with "/" for folders, e.g. "seed-0/train-sbp".
            inputs: what it reads: finished stages, or content hashes of outside files.
            settings: the configuration it depends on, JSON-serialisable.
            make: writes the stage's files into the folder it is given and returns its facts. It may find
                there what an interrupted earlier call left, and continue.
            ignore: patterns of files that are not results (logs with times in them).

        Raises:
            InputError: a finished folder no longer holds what its manifest says.
        """
        hashes = {key: value if isinstance(value, str) else value.digest for key, value in inputs.items()}
        values = json.loads(json.dumps({**settings, "format": FORMAT_VERSION}))
        key = Manifest(name, hashes, values).key
        folder = self.root / f"{name}-{key[:10]}"
        self.used.append(folder)
        manifest = read_manifest(folder)
        if manifest is not None and manifest.key == key:
            self.announce(f"{name}: done before, kept")
            self._stop_after(name)
            return StageResult(folder, manifest)
        if manifest is not None or (folder / MANIFEST_NAME).exists():
            raise InputError(f"{folder}: {_damage(folder)}; remove that folder to have it made again")
        if not self.build:
            raise MissingStage(f"{name}: not made yet; `megasbp run` makes it")
        first = self._runtime is None or self._runtime.is_main
        if first:
            folder.mkdir(parents=True, exist_ok=True)
            remove_partials(folder)
        self._wait()
        self.announce(f"{name}: started")
        start = time.monotonic()
        facts = make(folder)
        seconds = time.monotonic() - start
        if first:
            publish_manifest(folder, name, hashes, values, facts, ignore=ignore)
            self._record_time(name, seconds)
        self._wait()
        manifest = read_manifest(folder)
        assert manifest is not None
        self.announce(f"{name}: finished in {seconds:.1f} s")
        self._stop_after(name)
        return StageResult(folder, manifest)

    def _stop_after(self, name: str) -> None:
        if self._until in {name, name.rpartition("/")[2]}:
            raise Reached(name)

    def _wait(self) -> None:
        if self._runtime is not None:
            self._runtime.barrier()

    def _record_time(self, name: str, seconds: float) -> None:
        # Not a result: an interrupted stage has several entries, whose sum is what it took.
        with open(self.root / "timings.jsonl", "a", encoding="utf-8") as file:
            file.write(
                json.dumps({"stage": name, "seconds": round(seconds, 2), "cores": os.cpu_count()}) + "\n"
            )


def _damage(folder: Path) -> str:
    """What is wrong with a finished folder, naming the first file that differs from its manifest."""
    manifest = read_manifest(folder, check="none")
    if manifest is None:
        return f"{MANIFEST_NAME} cannot be read"
    for name, entry in manifest.files.items():
        file = folder / name
        if not file.is_file():
            return f"{name} is missing"
        size = file.stat().st_size
        if size != entry["bytes"]:
            return f"{name} has {size} bytes, its manifest says {entry['bytes']}"
    return "its manifest belongs to another stage"
