"""Models to and from Hugging Face: Qwen3ForCausalLM with QK-norm, LlamaForCausalLM without.

Both keep rotary planes as halves of a head, as we do, so that every tensor is copied as it is. Weights pass
through memory piece by piece: a shard on the way out, a tensor on the way in.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from megasbp.corpus.tokenizer import Tokenizer
from megasbp.errors import InputError
from megasbp.model.config import ModelConfig
from megasbp.model.hugging_face_config import our_config, their_config, their_name
from megasbp.model.mup import output_multiplier
from megasbp.model.safetensors_file import write_safetensors
from megasbp.model.transformer import Transformer
from megasbp.storage import publish_json, publishing_folder, read_json, require_free_space

SHARD_BYTES = 5_000_000_000
_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"
_READABLE = ("BF16", "F16", "F32")

Tensors = dict[str, torch.Tensor]


def model_shapes(config: ModelConfig) -> Tensors:
    """Every parameter of a model by its name, fp32 and without memory, on the "meta" device."""
    with torch.device("meta"):
        return dict(Transformer(config).state_dict())


def export_hugging_face(
    config: ModelConfig,
    fill: Callable[[Tensors], None],
    folder: Path,
    tokenizer_file: Path | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Publishes a folder that transformers and vLLM load: fp32 weights, configuration, tokenizer.

    Args:
        fill: gives tensors of the model, fp32 on the host, their values in place; called once a shard, which
            is all that is in memory.
        folder: replaced if it exists.
        tokenizer_file: tokenizer.json of the training corpus; copied, and its bos and eos recorded.
        shard_bytes: largest size of a file of weights; one tensor may be larger.

    Raises:
        InputError: the tokenizer cannot be read or has more tokens than the model, or the disk is too small.
    """
    tokenizer = None if tokenizer_file is None else Tokenizer.load(tokenizer_file)
    if tokenizer is not None and tokenizer.vocabulary_size > config.vocabulary_size:
        raise InputError(
            f"{tokenizer_file}: has {tokenizer.vocabulary_size} tokens, the model's vocabulary_size is "
            f"{config.vocabulary_size}; give the tokenizer the model was trained with"
        )
    shapes = model_shapes(config)
    total = sum(shape.nbytes for shape in shapes.values())
    require_free_space(folder, total)
    shards = _split(shapes, shard_bytes)
    weight_map: dict[str, str] = {}
    with publishing_folder(Path(folder)) as partial:
        for number, shard in enumerate(shards, start=1):
            several = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
            path = partial / (several if len(shards) > 1 else _WEIGHTS)
            _write_shard(path, shard, fill, config)
            weight_map |= {their_name(name): path.name for name in shard}
        if len(shards) > 1:
            publish_json(partial / _INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})
        ids = {
            "bos_token_id": None if tokenizer is None else tokenizer.bos,
            "eos_token_id": None if tokenizer is None else tokenizer.eos,
        }
        publish_json(partial / "config.json", {**their_config(config), **ids})
        publish_json(partial / "generation_config.json", {**ids, "do_sample": True})
        if tokenizer is not None and tokenizer_file is not None:
            shutil.copyfile(tokenizer_file, partial / "tokenizer.json")
            publish_json(partial / "tokenizer_config.json", _tokenizer_config(tokenizer, config))


@dataclass(frozen=True)
class HuggingFaceWeights:
    """The weights in a folder, which fit the model of its configuration; read when they are asked for.

    Attributes:
        shapes: our name of each parameter -> its shape, as `model_shapes`.
        files: the files, and our names of the parameters in each.
    """

    config: ModelConfig
    shapes: Tensors
    files: dict[Path, list[str]]

    def read(self, path: Path, name: str) -> torch.Tensor:
        """A parameter in one of the files, as fp32."""
        with _opened(path) as file:
            return file.get_tensor(their_name(name)).to(torch.float32)


def open_hugging_face(folder: Path) -> HuggingFaceWeights:
    """What a folder written by transformers or `export_hugging_face` holds; reads headers only.

    Raises:
        InputError: a file or a tensor is missing, a tensor is one too many or has another shape or type, or
            the model is not one that `Transformer` computes.
    """
    folder = Path(folder)
    config = our_config(read_json(folder / "config.json"), folder / "config.json")
    shapes = model_shapes(config)
    missing = {their_name(name): name for name in shapes}
    files: dict[Path, list[str]] = {}
    for path in _weight_files(folder):
        files[path] = []
        with _opened(path) as file:
            for name in file.keys():  # noqa: SIM118 (not a dictionary)
                own = missing.pop(name, None)
                if own is not None:
                    _require_readable(path, name, file.get_slice(name), shapes[own])
                    files[path].append(own)
                elif not (name.endswith("rotary_emb.inv_freq") or (config.tied and name == "lm_head.weight")):
                    raise InputError(
                        f"{path}: holds {name}, which {config.layers} blocks of this model do not have "
                        "(or have had from another file)"
                    )
    if missing:
        raise InputError(f"{folder}: {sorted(missing)[0]} is missing; {len(missing)} tensors in all")
    return HuggingFaceWeights(config, shapes, files)


def _split(shapes: Tensors, shard_bytes: int) -> list[Tensors]:
    """The parameters in their order, cut before each one that would make a shard too large."""
    shards: list[Tensors] = [{}]
    size = 0
    for name, shape in shapes.items():
        if shards[-1] and size + shape.nbytes > shard_bytes:
            shards.append({})
            size = 0
        shards[-1][name] = shape
        size += shape.nbytes
    return shards


def _write_shard(path: Path, shapes: Tensors, fill: Callable[[Tensors], None], config: ModelConfig) -> None:
    tensors = {name: torch.empty_like(shape, device="cpu") for name, shape in shapes.items()}
    fill(tensors)
    if "norm.weight" in tensors:
        # Theirs has no multiplier: the norm's weight takes it in.
        tensors["norm.weight"] *= output_multiplier(config)
    theirs = {their_name(name): tensor for name, tensor in tensors.items()}
    write_safetensors(path, theirs, theirs.__getitem__, {"format": "pt"})


def _tokenizer_config(tokenizer: Tokenizer, config: ModelConfig) -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": config.maximum_positions,
        "clean_up_tokenization_spaces": False,
        **{f"{role}_token": name for role, name in tokenizer.roles.items()},
    }


def _require_readable(path: Path, name: str, stored: Any, wanted: torch.Tensor) -> None:
    if stored.get_shape() != list(wanted.shape):
        shape = tuple(stored.get_shape())
        raise InputError(f"{path}: {name} has shape {shape}, config.json asks for {tuple(wanted.shape)}")
    if stored.get_dtype() not in _READABLE:
        raise InputError(f"{path}: {name} is {stored.get_dtype()}; allowed: {', '.join(_READABLE)}")


def _weight_files(folder: Path) -> list[Path]:
    """One file, or the shards that the index names."""
    if not (folder / _INDEX).is_file():
        return [folder / _WEIGHTS]
    index = read_json(folder / _INDEX)
    names = sorted(set(index.get("weight_map", {}).values()))
    for name in names:
        if Path(name).name != name:
            raise InputError(f"{folder / _INDEX}: names {name!r}, which is no file of the folder")
    return [folder / name for name in names]


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; export the model with safe serialisation") from None
    except SafetensorError as error:
        raise InputError(f"{path}: not a whole safetensors file ({error})") from None
