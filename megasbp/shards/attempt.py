"""One attempt at a shard: the same in this process, in a local one and on a Ray node."""

import errno
import shutil
import traceback
from dataclasses import asdict
from pathlib import Path

from megasbp.errors import InputError
from megasbp.shards.job import Job, Outcome, find_work
from megasbp.shards.lock import require_token
from megasbp.shards.publication import DifferentBytes, partial_folder, publish_once, published_shard
from megasbp.storage import Manifest


def attempt_shard(job: Job, shard: int) -> Outcome:
    """Works on a shard and publishes it, unless an earlier attempt has published it before it died."""
    try:
        manifest = _make_shard(job, shard)
    except InputError as error:
        return Outcome(shard, "mistake", str(error))
    except DifferentBytes as error:
        return Outcome(shard, "differs", str(error))
    except KeyboardInterrupt:
        # Only the process that the user sees receives it; the run ends.
        raise
    # SystemExit too: a library that calls sys.exit must not look like a killed worker.
    except BaseException as error:
        if _is_full(error):
            free = shutil.disk_usage(job.folder).free
            return Outcome(shard, "full", f"no space left for {job.folder} ({free / 1e9:.2f} GB free)")
        text = f"{type(error).__name__}: {error}".partition("\n")[0]
        return Outcome(shard, "failed", text, traceback.format_exc())
    return Outcome(shard, "published", manifest=asdict(manifest))


def _make_shard(job: Job, shard: int) -> Manifest:
    folder = Path(job.folder)
    require_token(folder, job.token)
    manifest = published_shard(job, shard)
    if manifest is not None:
        return manifest
    work = find_work(job.work)
    with partial_folder(job, shard) as partial:
        facts = work(shard, partial, **job.arguments())
        # Again, as late as can be: the run may have been killed and another one begun meanwhile.
        require_token(folder, job.token)
        return publish_once(job, shard, partial, dict(facts or {}))


def _is_full(error: BaseException | None) -> bool:
    """Whether the disk or the quota is full, also where a library has wrapped the error in one of its own."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
            return True
        error = error.__cause__ or error.__context__
    return False
