"""`megasbp clean`: gives back the disk that a run's current results do not need."""

import shutil
from pathlib import Path

from megasbp.errors import InputError
from megasbp.shards.lock import folder_lock
from megasbp.storage import MANIFEST_NAME, bytes_below, publish_json, read_json

_USED = "used.json"
# Folder of a run in which a sweep has a folder for each of its recipes.
SWEEP = "sweep"


def record_used(root: Path, folders: list[Path], place: Path) -> None:
    """Notes, in the folder `place`, which stage folders of a run some results came from."""
    names = sorted({folder.relative_to(root).as_posix() for folder in folders})
    publish_json(place / _USED, {"folders": names})


def clean(root: Path, everything: bool = False, dry_run: bool = False) -> list[tuple[Path, int]]:
    """Removes stage folders that neither the latest finished run nor a sweep used, and remains of kills.

    Args:
        root: the run's folder.
        everything: removes the whole run, its report included.
        dry_run: removes nothing.

    Returns:
        What was (or would be) removed, with its bytes.

    Raises:
        InputError: `root` is not a run, or another process uses it.
    """
    # Every run begins with its split, whose folder is named by ten digits of a hash.
    if not (_records(root) or any(root.glob("split-" + "[0-9a-f]" * 10))):
        raise InputError(f"{root}: not a run of megasbp; name a folder below runs/")
    with folder_lock(root):
        doomed = [root] if everything else _unused(root)
        removed = [(path, bytes_below(path)) for path in doomed]
        if not dry_run:
            for path in doomed:
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()
    return removed


def _unused(root: Path) -> list[Path]:
    records = _records(root)
    if not records:
        raise InputError(
            f"{root}: no finished run is recorded here; finish it, or use --all to remove all of it"
        )
    used = {root / name for record in records for name in read_json(record)["folders"]}
    stages = {path.parent for path in root.rglob(MANIFEST_NAME)}
    # Manifests also lie deeper (datasets, checkpoints): a stage folder is one or two levels below the root.
    candidates = [path for path in sorted(root.glob("*")) + sorted(root.glob("seed-*/*")) if path.is_dir()]
    unused = [
        path
        for path in candidates
        if path not in used
        and path.name not in {"report", SWEEP}
        and not path.name.startswith("seed-")
        and (path in stages or "-" in path.name)
    ]
    remains = (path for path in sorted(root.rglob("*.partial-*")) if not set(path.parents) & set(unused))
    return unused + list(remains)


def _records(root: Path) -> list[Path]:
    return [path for path in (root / _USED, *sorted(root.glob(f"{SWEEP}/*/{_USED}"))) if path.exists()]
