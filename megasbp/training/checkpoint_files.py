"""Which checkpoints there are, and whether each of their bytes is as it was written."""

import json
import re
import shutil
import stat
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from megasbp.errors import InputError
from megasbp.parallel.runtime import ALONE, Runtime
from megasbp.storage import MANIFEST_NAME, Manifest, hash_file, read_json, read_manifest

CHECKPOINT_STAGE = "checkpoint"
CHECKPOINT_FORMAT = 1
STATE_NAME = "state.json"
_STEP_FOLDER = re.compile(r"step-(\d{8,})")
# A checkpoint has no folders inside, so no name of a file leads out of it.
_FILE_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
_SOUND = 0
_DAMAGES = {
    1: "is missing",
    2: "is no plain file",
    3: "has another size",
    4: "has other bytes",
    5: "cannot be read",
}


def checkpoint_folder(parent: Path, step: int) -> Path:
    """The folder of a step's checkpoint."""
    return Path(parent) / f"step-{step:08d}"


def checkpoint_steps(folder: Path) -> set[int]:
    """Steps of the checkpoint folders below `folder`, whole or not."""
    names = (path.name for path in Path(folder).iterdir()) if Path(folder).is_dir() else ()
    return {int(match[1]) for name in names if (match := _STEP_FOLDER.fullmatch(name))}


def remove_checkpoints(folder: Path, keep: set[int]) -> None:
    """Removes all checkpoints but those of the steps `keep`."""
    for step in checkpoint_steps(folder) - keep:
        path = checkpoint_folder(folder, step)
        # By a rename first: a kill midway must not leave a folder that looks like a damaged checkpoint.
        doomed = path.with_name(f"{path.name}.partial-removed")
        shutil.rmtree(doomed, ignore_errors=True)
        path.rename(doomed)
        shutil.rmtree(doomed)


def read_state(folder: Path) -> dict[str, Any]:
    """A checkpoint's state.json."""
    return read_json(Path(folder) / STATE_NAME)


def require_whole(folder: Path, runtime: Runtime = ALONE) -> Manifest:
    """The manifest of a checkpoint whose every byte is as written.

    The ranks of `runtime` all call it: each hashes its share of the files, and all know what all found.

    Raises:
        InputError: it is missing, partial or damaged, on all ranks alike; names the first file that is wrong.
    """
    folder = Path(folder)
    manifest = _shared_manifest(folder, runtime)
    names = sorted(manifest.files)
    damages = torch.zeros(len(names), dtype=torch.int64)
    for number in range(runtime.rank, len(names), runtime.world_size):
        damages[number] = _damage(folder / names[number], manifest.files[names[number]])
    for name, damage in zip(names, runtime.sum(damages).tolist(), strict=True):
        if damage != _SOUND:
            raise _refusal(folder, f"{name} {_DAMAGES[damage]}")
    return manifest


def newest_checkpoint(folder: Path, runtime: Runtime = ALONE) -> Path | None:
    """The newest whole checkpoint below `folder`, the same on all ranks, which all call it; None without one.

    Those that are damaged, or whose best predecessor is (the run could no longer end with it), are named on
    stderr and skipped.
    """
    steps = json.loads(runtime.broadcast(json.dumps(sorted(checkpoint_steps(folder), reverse=True))))
    for step in steps:
        path = checkpoint_folder(folder, step)
        try:
            require_whole(path, runtime)
            best = read_state(path).get("best_step")
            if best not in {None, step}:
                require_whole(checkpoint_folder(folder, best), runtime)
        except InputError as error:
            if runtime.is_main:
                print(f"megasbp: {path.name} is skipped: {error}", file=sys.stderr, flush=True)
            continue
        return path
    return None


def _refusal(folder: Path, problem: str) -> InputError:
    return InputError(f"{folder}: damaged or partial checkpoint: {problem}; name another one, or train again")


def _shared_manifest(folder: Path, runtime: Runtime) -> Manifest:
    """The manifest as the main rank reads it, or its error, on every rank."""
    found: dict[str, Any] = {}
    if runtime.is_main:
        try:
            found = {"manifest": asdict(_sound_manifest(folder))}
        except InputError as error:
            found = {"refusal": str(error)}
    found = json.loads(runtime.broadcast(json.dumps(found)))
    if "refusal" in found:
        raise InputError(found["refusal"])
    return Manifest(**found["manifest"])


def _sound_manifest(folder: Path) -> Manifest:
    """A manifest of a checkpoint that names the folder's own files and no others; opens none of them."""
    if not folder.is_dir():
        raise InputError(f"{folder}: missing checkpoint; name another one, or train again")
    manifest = read_manifest(folder, check="none")
    if manifest is None:
        raise _refusal(folder, f"{MANIFEST_NAME} is missing or cut short")
    if manifest.stage != CHECKPOINT_STAGE:
        raise InputError(f"{folder}: holds a stage {manifest.stage!r}, not a checkpoint; name another folder")
    version = manifest.settings.get("format")
    if version != CHECKPOINT_FORMAT:
        raise InputError(f"{folder}: format {version}, this version reads {CHECKPOINT_FORMAT}; train again")
    for name in manifest.files:
        if not _FILE_NAME.fullmatch(name):
            raise _refusal(folder, f"its manifest names {name!r}, which is no file of the folder")
    foreign = {path.name for path in folder.iterdir()} - manifest.files.keys() - {MANIFEST_NAME}
    if foreign:
        raise InputError(f"{folder}: holds {min(foreign)}, which its manifest does not name; remove it")
    return manifest


def _damage(path: Path, entry: dict[str, Any]) -> int:
    """_SOUND, or the key of what is wrong with a file. Follows no link."""
    try:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode):
            return 2
        if status.st_size != entry.get("bytes"):
            return 3
        return _SOUND if hash_file(path) == entry.get("sha256") else 4
    except FileNotFoundError:
        return 1
    except OSError:
        # Said by all ranks: they wait for each other's findings.
        return 5
