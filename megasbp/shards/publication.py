"""A shard's folder: made under a name of its own, published by one rename that only one attempt can win."""

import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from megasbp.errors import InputError
from megasbp.shards.job import Job
from megasbp.storage import MANIFEST_NAME, Manifest, publish_manifest, read_manifest, sync_file


class DifferentBytes(Exception):
    """Two computations of one shard do not agree."""


def shard_folder(folder: Path, shard: int) -> Path:
    """Folder of a published shard."""
    return Path(folder) / f"shard-{shard:06d}"


def published_shard(job: Job, shard: int) -> Manifest | None:
    """The manifest of a shard that is published and whole, or None.

    Raises:
        InputError: the folder is damaged, or was made by another function, from other inputs or with other
            settings; the message names the first that differs and the mend.
    """
    path = shard_folder(Path(job.folder), shard)
    manifest = read_manifest(path)
    if manifest is None:
        if path.exists() and any(path.iterdir()):
            raise InputError(
                f"{path}: does not hold what a {MANIFEST_NAME} there says; remove that folder to have the "
                "shard made again"
            )
        return None
    wanted = job.manifest(shard)
    if manifest.key != wanted.key:
        raise InputError(
            f"{path}: made with {manifest.difference(wanted)}; use another folder, or remove {job.folder} "
            "to make all shards anew"
        )
    return manifest


@contextmanager
def partial_folder(job: Job, shard: int) -> Iterator[Path]:
    """Yields an empty folder for one attempt at a shard; it is removed unless it was published.

    Its name is unique on every machine: two attempts at a shard never write the same files.
    """
    final = shard_folder(Path(job.folder), shard)
    partial = final.with_name(f"{final.name}.partial-{uuid.uuid4().hex}")
    partial.mkdir()
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def publish_once(job: Job, shard: int, partial: Path, facts: dict[str, object]) -> Manifest:
    """Publishes a finished partial folder, or finds that another attempt did so first.

    Returns:
        The manifest of the published shard.

    Raises:
        DifferentBytes: the other attempt's files or facts are not the same.
    """
    final = shard_folder(Path(job.folder), shard)
    wanted = job.manifest(shard)
    manifest = publish_manifest(
        partial, wanted.stage, wanted.inputs, wanted.settings, facts, lasting=job.lasting
    )
    if job.lasting:
        for entry in sorted(partial.rglob("*")):
            sync_file(entry)
        sync_file(partial)
    try:
        os.rename(partial, final)
    except OSError as error:
        # A folder that is not empty cannot be replaced by rename: the first attempt there has won.
        if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
            raise
        winner = published_shard(job, shard)
        if winner is None or winner.digest != manifest.digest:
            raise DifferentBytes(_disagreement(winner, manifest)) from None
    if job.lasting:
        sync_file(final.parent)
    return manifest


def _disagreement(winner: Manifest | None, loser: Manifest) -> str:
    if winner is None:
        return "the folder published first has disappeared"
    names = sorted(
        name
        for name in winner.files.keys() | loser.files.keys()
        if winner.files.get(name) != loser.files.get(name)
    )
    return f"{names[0] if names else 'its facts'} came out differently when the shard was computed twice"


def remove_leftovers(folder: Path, shard: int | None = None) -> None:
    """Removes the partial folders of dead attempts, at one shard or at all.

    What a worker that is just dying still writes to may stay; the next run removes it.
    """
    name = "shard-*" if shard is None else shard_folder(folder, shard).name
    for leftover in folder.glob(f"{name}.partial-*"):
        shutil.rmtree(leftover, ignore_errors=True)
