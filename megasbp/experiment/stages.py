"""A stage is a function from inputs to a folder; a rerun does only what is missing or changed.

A stage's folder is named by the hash of what its outputs depend on, so a changed recipe never overwrites an
earlier result, and going back to an old setting finds it again. A folder without a manifest is unfinished
work: the same stage with the same key continues in it.
"""

import json
import os
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from megasbp.errors import InputError
from megasbp.parallel.runtime import Runtime
from megasbp.shards.lock import folder_lock
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
    """A stage was needed that may not be made here (see `Workspace.makes`).

    Attributes:
        stage: its name.
    """

    def __init__(self, stage: str) -> None:
        super().__init__(f"{stage}: not made yet; `megasbp run` makes it")
        self.stage = stage


class Workspace:
    """The stages below one run's folder.

    Args:
        root: the run's folder.
        announce: receives one line per stage.
        makes: names of the stages that may be made, and spoken of, here; another one that is missing raises
            MissingStage. None for all.
        runtime: all ranks make a stage together, the first one publishes it; None for one process.
    """

    def __init__(
        self,
        root: Path,
        announce: Callable[[str], None] = print,
        makes: Collection[str] | None = None,
        runtime: Runtime | None = None,
    ) -> None:
        self.root = Path(root)
        self._runtime = runtime
        self.makes = makes
        self.used: list[Path] = []
        self.announce = announce

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
            InputError: a finished folder no longer holds what its manifest says, or another process makes the
                stage.
        """
        hashes = {key: value if isinstance(value, str) else value.digest for key, value in inputs.items()}
        values = json.loads(json.dumps({**settings, "format": FORMAT_VERSION}))
        key = Manifest(name, hashes, values).key
        folder = self.root / f"{name}-{key[:10]}"
        self.used.append(folder)
        made_here = self.may_make(name)
        first = self._runtime is None or self._runtime.is_main
        manifest = self._finished(folder, key)
        if manifest is not None:
            if made_here:
                self.announce(f"{name}: done before, kept")
            return StageResult(folder, manifest)
        if not made_here:
            raise MissingStage(name)
        with self._holding(folder):
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
        manifest = self._finished(folder, key)
        assert manifest is not None
        self.announce(f"{name}: finished in {seconds:.1f} s")
        return StageResult(folder, manifest)

    def may_make(self, name: str) -> bool:
        """Whether a stage may be made here."""
        return self.makes is None or name in self.makes

    def _finished(self, folder: Path, key: str) -> Manifest | None:
        """The manifest of a finished folder. The main rank looks, and all ranks take what it saw.

        A shared file system may show other hosts an older state for a while.
        """
        manifest = None
        if self._runtime is None or self._runtime.is_main:
            manifest = read_manifest(folder)
            other = manifest is not None and manifest.key != key
            if other or (manifest is None and (folder / MANIFEST_NAME).exists()):
                raise InputError(f"{folder}: {_damage(folder)}; remove that folder to have it made again")
        if self._runtime is None:
            return manifest
        seen = self._runtime.broadcast(json.dumps(asdict(manifest) if manifest else None))
        return Manifest(**json.loads(seen)) if seen != "null" else None

    def _holding(self, folder: Path) -> AbstractContextManager[object]:
        """Keeps other processes from making the same stage.

        Where several ranks make it, whoever starts them sees to that: a lost host's lock may outlive it.
        """
        if self._runtime is not None and self._runtime.world_size > 1:
            return nullcontext()
        return folder_lock(folder, beside=True)

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
