"""Checkpoints: safetensors shards that load on any number of ranks, whole or not there at all.

A checkpoint is a folder `step-XXXXXXXX`: one safetensors file per rank (torch's distributed checkpoint), with
the weights as "model.NAME" and the moments of AdamW as "exp_avg.NAME" and "exp_avg_sq.NAME", all fp32;
`state.json`; and a manifest of hashes, written last.
"""

import json
import re
import shutil
import struct
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint import HuggingFaceStorageReader, HuggingFaceStorageWriter

from megasbp.errors import InputError
from megasbp.model.config import ModelConfig
from megasbp.model.transformer import Transformer
from megasbp.parallel.runtime import Runtime
from megasbp.storage import (
    Manifest,
    publish_json,
    publish_manifest,
    publishing_folder,
    read_json,
    read_manifest,
)
from megasbp.training.optimizer import MOMENTS, AdamW

STATE_NAME = "state.json"
_STAGE = "checkpoint"
_FORMAT = 1
_STEP_FOLDER = re.compile(r"step-(\d{8,})")


def checkpoint_folder(parent: Path, step: int) -> Path:
    """The folder of a step's checkpoint."""
    return Path(parent) / f"step-{step:08d}"


def checkpoint_tensors(model: nn.Module, optimizer: AdamW | None = None) -> dict[str, torch.Tensor]:
    """What a checkpoint holds, by its names there: the live tensors, DTensors where the model is sharded.

    Taken once after `parallelize`: while FSDP2 has gathered a block, the module itself shows other tensors.
    """
    tensors = {}
    for name, parameter in model.named_parameters():
        tensors[f"model.{name}"] = parameter.detach()
        if optimizer is not None:
            for moment in MOMENTS:
                tensors[f"{moment}.{name}"] = optimizer.state[parameter][moment]
    return tensors


def save_checkpoint(
    folder: Path, tensors: Mapping[str, torch.Tensor], state: Mapping[str, Any], runtime: Runtime
) -> None:
    """Publishes a checkpoint; all ranks call it.

    Equal tensors and state on equally many ranks are equal bytes.

    Args:
        folder: on a file system that all ranks share.
        state: JSON-serialisable; "model" holds the model's configuration (for `load_model`), "best_step" the
            step of the best validation so far, if any (for `newest_checkpoint`).

    Raises:
        OSError: the disk is full; what was there before is unchanged.
    """
    with publishing_folder(folder) if runtime.is_main else nullcontext(folder) as own:
        partial = Path(runtime.broadcast(str(own)))
        writer = HuggingFaceStorageWriter(str(partial), save_distributed=True)
        try:
            with _expecting_one_process(runtime.world_size == 1) as alone:
                dcp.save(dict(tensors), storage_writer=writer, no_dist=alone)
        except dcp.api.CheckpointException as error:
            # A full disk is said as such, by the error of the rank that met it.
            failures = [failure for failure, _ in error.failures.values()]
            raise next((failure for failure in failures if isinstance(failure, OSError)), error) from None
        if runtime.is_main:
            for path in sorted(partial.glob("*.safetensors")):
                _sort_metadata(path)
            publish_json(partial / STATE_NAME, dict(state))
            publish_manifest(partial, _STAGE, inputs={}, settings={"format": _FORMAT})
    runtime.barrier()


def load_tensors(folder: Path, tensors: Mapping[str, torch.Tensor], runtime: Runtime | None = None) -> None:
    """Fills `tensors`, in place, with those of the same names; each rank reads its shards only.

    Raises:
        InputError: the checkpoint lacks one of them, or holds another shape.
    """
    reader = HuggingFaceStorageReader(str(folder))
    try:
        with _expecting_one_process(runtime is None or runtime.world_size == 1) as alone:
            dcp.load(dict(tensors), storage_reader=reader, no_dist=alone)
    except (dcp.api.CheckpointException, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"{folder}: does not hold this model ({reason})") from None


def read_state(folder: Path) -> dict[str, Any]:
    """A checkpoint's state.json."""
    return read_json(Path(folder) / STATE_NAME)


def require_whole(folder: Path) -> Manifest:
    """The manifest of a checkpoint whose every byte is as written.

    Raises:
        InputError: it is missing, partial or damaged.
    """
    manifest = read_manifest(folder, check="hashes")
    if manifest is None or manifest.stage != _STAGE:
        problem = "damaged or partial" if Path(folder).is_dir() else "missing"
        raise InputError(f"{folder}: {problem} checkpoint; name another one, or train again")
    if manifest.settings.get("format") != _FORMAT:
        raise InputError(f"{folder}: format {manifest.settings.get('format')}, this version reads {_FORMAT}")
    return manifest


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint below `folder`; None when there is none.

    Those that are damaged, or whose best predecessor is (the run could no longer end with it), are named on
    stderr and skipped.
    """
    for step in sorted(checkpoint_steps(folder), reverse=True):
        path = checkpoint_folder(folder, step)
        try:
            require_whole(path)
            best = read_state(path).get("best_step")
            if best not in {None, step}:
                require_whole(checkpoint_folder(folder, best))
        except InputError as error:
            print(f"megasbp: {path.name} is skipped: {error}", file=sys.stderr, flush=True)
            continue
        return path
    return None


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


def load_model(folder: Path, device: torch.device | str = "cpu") -> Transformer:
    """The whole model of a checkpoint, fp32 parameters, in eval mode, on one device.

    Raises:
        InputError: the checkpoint is missing, partial or damaged.
    """
    require_whole(folder)
    model = Transformer(ModelConfig(**read_state(folder)["model"]))
    load_tensors(folder, checkpoint_tensors(model))
    return model.to(device).eval()


@contextmanager
def _expecting_one_process(alone: bool) -> Iterator[bool]:
    """torch warns that it assumes a single process even when it is told so."""
    with warnings.catch_warnings():
        if alone:
            warnings.filterwarnings("ignore", "torch.distributed is disabled")
        yield alone


def _sort_metadata(path: Path) -> None:
    """Sorts the metadata in a safetensors header, which is written in another order each time."""
    with open(path, "r+b") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        raw = file.read(length)
        header = json.loads(raw)
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        encoded = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        assert len(encoded) <= length, "a reordered header has the same length"
        file.seek(8)
        file.write(encoded.ljust(length))
