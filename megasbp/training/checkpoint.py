"""Checkpoints: safetensors shards that load on any number of ranks, whole or not there at all.

A checkpoint is a folder, e.g. `step-00001000`: one safetensors file per rank (torch's distributed
checkpoint), with the weights as "model.NAME" and the moments of AdamW as "exp_avg.NAME" and
"exp_avg_sq.NAME", all fp32; `state.json`; and a manifest of hashes, written last.
"""

import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint import HuggingFaceStorageReader

from megasbp.errors import InputError
from megasbp.model.config import ModelConfig
from megasbp.model.transformer import Transformer
from megasbp.parallel.runtime import ALONE, Runtime
from megasbp.parallel.shards import local_tensor
from megasbp.storage import publish_json, publish_manifest, publishing_folder, remember_hash
from megasbp.training.adamw import MOMENTS, AdamW
from megasbp.training.checkpoint_files import (
    CHECKPOINT_FORMAT,
    CHECKPOINT_STAGE,
    STATE_NAME,
    read_state,
    require_whole,
)
from megasbp.training.shard_writer import ShardWriter


def checkpoint_tensors(model: nn.Module, optimizer: AdamW | None = None) -> dict[str, torch.Tensor]:
    """What a checkpoint holds, by its names there: the live tensors, DTensors where the model is sharded.

    Taken once after `parallel_model`: while FSDP2 has gathered a block, the module shows other tensors.
    """
    tensors = {}
    for name, parameter in model.named_parameters():
        tensors[f"model.{name}"] = parameter.detach()
        if optimizer is not None:
            for moment in MOMENTS:
                tensors[f"{moment}.{name}"] = optimizer.state[parameter][moment]
    return tensors


def save_checkpoint(
    folder: Path,
    tensors: Mapping[str, torch.Tensor],
    state: Mapping[str, Any],
    runtime: Runtime,
    values: Mapping[str, torch.Tensor] | None = None,
    published: Callable[[], None] = lambda: None,
) -> None:
    """Publishes a checkpoint; all ranks call it, each writes its parts and their hash.

    Equal tensors and state on equally many ranks are equal bytes.

    Args:
        folder: on a file system that all ranks share.
        tensors: ranks may have different ones; of one name they are parts of one DTensor, or equal.
        state: JSON-serialisable; "model" holds the model's configuration (for `load_model`), "best_step" the
            step of the best validation so far, if any (for `newest_checkpoint`).
        values: what to write instead of this rank's parts of `tensors`, which then only tell the layout.
        published: called on the main rank when the checkpoint is there.

    Raises:
        OSError: the disk of a rank is full; raised on all ranks. What was there before is unchanged.
    """
    with ExitStack() as publication:

        def begin() -> Path:
            return publication.enter_context(publishing_folder(folder))

        def publish(partial: Path, hashes: Mapping[str, str]) -> None:
            complete_folder(partial, hashes, state)
            publication.close()
            published()

        if values is None:
            values = {name: local_tensor(tensor) for name, tensor in tensors.items()}
        alone = _expect_one_process(runtime)
        try:
            dcp.save(
                dict(tensors),
                storage_writer=ShardWriter(values, begin, publish),
                process_group=runtime.group,
                no_dist=alone,
            )
        except dcp.api.CheckpointException as error:
            # A full disk is said as such, by the error of the rank that met it.
            failures = [failure for failure, _ in error.failures.values()]
            raise next((failure for failure in failures if isinstance(failure, OSError)), error) from None


def complete_folder(partial: Path, hashes: Mapping[str, str], state: Mapping[str, Any]) -> None:
    """Adds state and manifest to a folder of shards.

    Args:
        hashes: file name -> SHA-256 of what was just written there.
    """
    for name, digest in hashes.items():
        remember_hash(partial / name, digest)
    publish_json(partial / STATE_NAME, dict(state))
    publish_manifest(partial, CHECKPOINT_STAGE, inputs={}, settings={"format": CHECKPOINT_FORMAT})


def load_tensors(folder: Path, tensors: Mapping[str, torch.Tensor], runtime: Runtime = ALONE) -> None:
    """Fills `tensors`, in place, with those of the same names; each rank reads its parts only.

    Raises:
        InputError: the checkpoint lacks one of them, or holds another shape.
    """
    reader = HuggingFaceStorageReader(str(folder))
    alone = _expect_one_process(runtime)
    try:
        dcp.load(dict(tensors), storage_reader=reader, process_group=runtime.group, no_dist=alone)
    except (dcp.api.CheckpointException, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"{folder}: does not hold this model ({reason})") from None


def load_model(folder: Path, device: torch.device | str = "cpu") -> Transformer:
    """The whole model of a checkpoint, fp32 parameters, in eval mode, on one device.

    Raises:
        InputError: the checkpoint is missing, partial or damaged.
    """
    require_whole(folder)
    model = Transformer(ModelConfig(**read_state(folder)["model"]))
    load_tensors(folder, checkpoint_tensors(model))
    return model.to(device).eval()


def _expect_one_process(runtime: Runtime) -> bool:
    """Whether there is one process; torch then warns that it assumes what it was told, which is silenced.

    For good, not in a block: threads share the list of what is silenced.
    """
    if runtime.world_size == 1:
        warnings.filterwarnings("ignore", "torch.distributed is disabled")
    return runtime.world_size == 1
