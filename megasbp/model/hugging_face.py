"""Models to and from Hugging Face: Qwen3ForCausalLM with QK-norm, LlamaForCausalLM without.

Both keep rotary planes as halves of a head, as we do, so that every tensor is copied as it is.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from megasbp.corpus.tokenizer import Tokenizer
from megasbp.errors import InputError
from megasbp.model.config import ModelConfig
from megasbp.model.mup import output_multiplier
from megasbp.model.transformer import Transformer
from megasbp.storage import publish_json, publishing_folder, read_json

_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"
_ARCHITECTURES = {"qwen3": "Qwen3ForCausalLM", "llama": "LlamaForCausalLM"}
_OUTSIDE_BLOCKS = {
    "embedding.weight": "model.embed_tokens.weight",
    "norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_IN_BLOCKS = {
    "attention_norm": "input_layernorm",
    "attention.query": "self_attn.q_proj",
    "attention.key": "self_attn.k_proj",
    "attention.value": "self_attn.v_proj",
    "attention.output": "self_attn.o_proj",
    "attention.query_norm": "self_attn.q_norm",
    "attention.key_norm": "self_attn.k_norm",
    "feed_forward_norm": "post_attention_layernorm",
    "feed_forward.gate": "mlp.gate_proj",
    "feed_forward.up": "mlp.up_proj",
    "feed_forward.down": "mlp.down_proj",
}


def export_hugging_face(model: Transformer, folder: Path, tokenizer_file: Path | None = None) -> None:
    """Publishes a folder that transformers and vLLM load: fp32 weights, configuration, tokenizer.

    Args:
        model: whole, not sharded.
        folder: replaced if it exists.
        tokenizer_file: tokenizer.json of the training corpus; copied, and its bos and eos recorded.

    Raises:
        InputError: the tokenizer cannot be read or has more tokens than the model.
    """
    config = model.config
    tokenizer = None if tokenizer_file is None else Tokenizer.load(tokenizer_file)
    if tokenizer is not None and tokenizer.vocabulary_size > config.vocabulary_size:
        raise InputError(
            f"{tokenizer_file}: has {tokenizer.vocabulary_size} tokens, the model's vocabulary_size is "
            f"{config.vocabulary_size}; give the tokenizer the model was trained with"
        )
    tensors = {_their_name(name): tensor.contiguous() for name, tensor in model.state_dict().items()}
    # Theirs has no multiplier: the norm's weight takes it in.
    tensors[_their_name("norm.weight")] = model.norm.weight.detach() * output_multiplier(config)
    with publishing_folder(Path(folder)) as partial:
        save_file(tensors, partial / _WEIGHTS, metadata={"format": "pt"})
        ids = {
            "bos_token_id": None if tokenizer is None else tokenizer.bos,
            "eos_token_id": None if tokenizer is None else tokenizer.eos,
        }
        publish_json(partial / "config.json", {**_their_config(config), **ids})
        publish_json(partial / "generation_config.json", {**ids, "do_sample": True})
        if tokenizer is not None and tokenizer_file is not None:
            shutil.copyfile(tokenizer_file, partial / "tokenizer.json")
            publish_json(
                partial / "tokenizer_config.json",
                {
                    "tokenizer_class": "PreTrainedTokenizerFast",
                    "model_max_length": config.maximum_positions,
                    "clean_up_tokenization_spaces": False,
                    **{f"{role}_token": name for role, name in tokenizer.roles.items()},
                },
            )


def import_hugging_face(folder: Path) -> Transformer:
    """The model of a folder written by transformers or `export_hugging_face`: fp32, eval mode, on the CPU.

    Raises:
        InputError: a file is missing, or the model is not one that `Transformer` computes.
    """
    folder = Path(folder)
    config = _our_config(read_json(folder / "config.json"), folder / "config.json")
    model = Transformer(config).eval()
    state = model.state_dict()
    missing = {_their_name(name): name for name in state}
    for path in _weight_files(folder):
        for name, tensor in _tensors(path):
            own = missing.pop(name, None)
            if own is not None:
                if state[own].shape != tensor.shape:
                    raise InputError(
                        f"{path}: {name} has shape {tuple(tensor.shape)}, "
                        f"config.json asks for {tuple(state[own].shape)}"
                    )
                state[own].copy_(tensor)
            elif not (name.endswith("rotary_emb.inv_freq") or (config.tied and name == "lm_head.weight")):
                raise InputError(
                    f"{path}: holds {name}, which {config.layers} blocks of this model do not have"
                )
    if missing:
        raise InputError(f"{folder}: {sorted(missing)[0]} is missing; {len(missing)} tensors in all")
    return model


def _their_name(name: str) -> str:
    if name in _OUTSIDE_BLOCKS:
        return _OUTSIDE_BLOCKS[name]
    _, layer, inner = name.split(".", 2)
    return f"model.layers.{layer}.{_IN_BLOCKS[inner.removesuffix('.weight')]}.weight"


def _their_config(config: ModelConfig) -> dict[str, Any]:
    model_type = "qwen3" if config.qk_norm else "llama"
    return {
        "architectures": [_ARCHITECTURES[model_type]],
        "model_type": model_type,
        "vocab_size": config.vocabulary_size,
        "num_hidden_layers": config.layers,
        "hidden_size": config.width,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "intermediate_size": config.feed_forward,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        # transformers 5 reads the first, earlier versions and other engines the second.
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "rope_theta": config.rope_theta,
        "rms_norm_eps": config.norm_epsilon,
        "tie_word_embeddings": config.tied,
        "max_position_embeddings": config.maximum_positions,
        "dtype": "float32",
    }


def _our_config(theirs: dict[str, Any], path: Path) -> ModelConfig:
    model_type = theirs.get("model_type")
    if model_type not in _ARCHITECTURES:
        raise InputError(
            f"{path}: model_type is {model_type!r}; allowed: {', '.join(sorted(_ARCHITECTURES))}"
        )
    rope = theirs.get("rope_parameters") or theirs.get("rope_scaling") or {}
    rope_type = rope.get("rope_type", rope.get("type", "default"))
    required = {"hidden_act": "silu", "attention_bias": False, "mlp_bias": False, "use_sliding_window": False}
    found = {"rope_type": rope_type, **{key: theirs.get(key, value) for key, value in required.items()}}
    for key, value in {"rope_type": "default", **required}.items():
        if found[key] != value:
            raise InputError(f"{path}: {key} is {found[key]!r}; only {value!r} is computed here")
    try:
        return ModelConfig(
            vocabulary_size=theirs["vocab_size"],
            layers=theirs["num_hidden_layers"],
            width=theirs["hidden_size"],
            heads=theirs["num_attention_heads"],
            kv_heads=theirs.get("num_key_value_heads") or theirs["num_attention_heads"],
            head_dim=theirs.get("head_dim") or theirs["hidden_size"] // theirs["num_attention_heads"],
            feed_forward=theirs["intermediate_size"],
            rope_theta=rope.get("rope_theta", theirs.get("rope_theta", 10_000.0)),
            norm_epsilon=theirs["rms_norm_eps"],
            qk_norm=model_type == "qwen3",
            tied=theirs.get("tie_word_embeddings", False),
            maximum_positions=theirs["max_position_embeddings"],
        )
    except KeyError as error:
        raise InputError(f"{path}: {error.args[0]} is missing") from None
    except ValidationError as error:
        raise InputError(f"{path}: {error.errors()[0]['msg']}") from None


def _weight_files(folder: Path) -> list[Path]:
    """One file, or the shards that the index names."""
    if not (folder / _INDEX).is_file():
        return [folder / _WEIGHTS]
    return [folder / name for name in sorted(set(read_json(folder / _INDEX)["weight_map"].values()))]


def _tensors(path: Path) -> Iterator[tuple[str, torch.Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 (not a dictionary)
                yield name, file.get_tensor(name)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; export the model with safe serialisation") from None
    except SafetensorError as error:
        raise InputError(f"{path}: not a whole safetensors file ({error})") from None
