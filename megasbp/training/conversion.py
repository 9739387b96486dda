"""Checkpoints to and from Hugging Face folders, piece by piece: a model need not fit into memory."""

from pathlib import Path

import torch

from megasbp.model.config import ModelConfig
from megasbp.model.hugging_face import SHARD_BYTES, export_hugging_face, open_hugging_face
from megasbp.model.safetensors_file import write_safetensors
from megasbp.storage import publishing_folder, require_free_space
from megasbp.training.checkpoint import complete_folder, load_tensors
from megasbp.training.checkpoint_files import read_state, require_whole
from megasbp.training.shard_writer import shard_metadata, shard_name


def export_checkpoint(
    checkpoint: Path, folder: Path, tokenizer_file: Path | None = None, shard_bytes: int = SHARD_BYTES
) -> None:
    """Publishes a checkpoint's weights as `export_hugging_face` does, whose arguments the others are.

    Raises:
        InputError: the checkpoint is not whole; or as `export_hugging_face`.
    """
    require_whole(checkpoint)

    def fill(tensors: dict[str, torch.Tensor]) -> None:
        load_tensors(checkpoint, {f"model.{name}": tensor for name, tensor in tensors.items()})

    config = ModelConfig(**read_state(checkpoint)["model"])
    export_hugging_face(config, fill, folder, tokenizer_file, shard_bytes)


def import_checkpoint(source: Path, folder: Path) -> None:
    """Publishes the model of a Hugging Face folder as a checkpoint of weights, fp32; one tensor is in memory.

    `load_model` and `TrainingJob.initial_checkpoint` take it; there is no optimiser state to continue from.

    Args:
        folder: replaced if it exists.

    Raises:
        InputError: as `open_hugging_face`; nothing is written then.
    """
    weights = open_hugging_face(source)
    require_free_space(folder, sum(shape.nbytes for shape in weights.shapes.values()))
    with publishing_folder(Path(folder)) as partial:
        hashes = {}
        for number, (path, names) in enumerate(weights.files.items(), start=1):
            hashes[shard_name(number)] = write_safetensors(
                partial / shard_name(number),
                {f"model.{name}": weights.shapes[name] for name in names},
                lambda name, path=path: weights.read(path, name.removeprefix("model.")),  # type: ignore[misc]
                shard_metadata({f"model.{name}": [0] * weights.shapes[name].ndim for name in names}),
            )
        complete_folder(partial, hashes, {"model": weights.config.model_dump(mode="json")})
