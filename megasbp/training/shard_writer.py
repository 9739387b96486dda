"""How torch's distributed checkpoint writes ours: each rank one safetensors file, the main rank the rest.

torch plans which rank writes which part of which tensor, each part once, and carries an error of any rank to
all of them; `HuggingFaceStorageReader` reads the files at any other layout. Its own writer is not used: it
holds the whole file in memory a second time, and its files would have to be read again to be hashed.
"""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint import StorageWriter
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner
from torch.distributed.checkpoint.storage import WriteResult
from torch.futures import Future

from megasbp.model.safetensors_file import write_safetensors


class ShardWriter(StorageWriter):
    """Writes one checkpoint; `torch.distributed.checkpoint.save` calls it.

    Args:
        values: name -> this rank's part of the tensor; on the host, or copied there one after the other.
        begin: makes the folder that the files go to; called on the main rank, before any rank writes.
        publish: takes the folder, and file name -> SHA-256; called on the main rank, when all is on disk.
    """

    def __init__(
        self,
        values: Mapping[str, torch.Tensor],
        begin: Callable[[], Path],
        publish: Callable[[Path, dict[str, str]], None],
    ) -> None:
        self._values, self._begin, self._publish = values, begin, publish
        self._folder: Path | None = None

    def reset(self, checkpoint_id: str | os.PathLike | None = None) -> None:
        """A writer writes once: there is nothing to reset."""

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        """What the main rank does, it is asked for."""

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        """The plan as it is."""
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        """Tells each rank its file."""
        self._folder = self._begin()
        return [
            replace(plan, storage_data=str(self._folder / shard_name(number)))
            for number, plan in enumerate(plans, start=1)
        ]

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        """Writes this rank's file, unless others write all that it holds; the result names file and hash."""
        done: Future[list[WriteResult]] = Future()
        if not plan.items:
            done.set_result([])
            return done
        path = Path(plan.storage_data)
        offsets = {
            item.index.fqn: list(item.tensor_data.chunk.offsets) for item in plan.items if item.tensor_data
        }
        assert len(offsets) == len(plan.items), "a rank holds one part of a tensor"
        digest = write_safetensors(
            path,
            {name: self._values[name] for name in offsets},
            lambda name: self._values[name].cpu(),
            shard_metadata(offsets),
        )
        done.set_result([WriteResult(plan.items[0].index, path.stat().st_size, (path.name, digest))])
        return done

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """Publishes, on the main rank."""
        assert self._folder is not None
        self._publish(self._folder, dict(result.storage_data for rank in results for result in rank))

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike) -> bool:
        """Never chosen by torch from a path."""
        return False


def shard_name(number: int) -> str:
    """File of the rank `number`, counted from 1."""
    return f"shard-{number:05d}-model-00001-of-00001.safetensors"


def shard_metadata(offsets: Mapping[str, list[int]]) -> dict[str, str]:
    """Where in its tensor each part of a file begins, as `HuggingFaceStorageReader` looks it up."""
    places = {name: {"saved_offsets": places} for name, places in sorted(offsets.items())}
    return {"DCP_SHARDING_INFO": json.dumps(places), "DCP_VERSION": "1.0", "format": "pt"}
