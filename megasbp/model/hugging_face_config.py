"""Names and settings of Hugging Face's models beside ours: Qwen3ForCausalLM, LlamaForCausalLM."""

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from megasbp.errors import InputError
from megasbp.model.config import ModelConfig

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


def their_name(name: str) -> str:
    """Hugging Face's name of one of our parameters."""
    if name in _OUTSIDE_BLOCKS:
        return _OUTSIDE_BLOCKS[name]
    _, layer, inner = name.split(".", 2)
    return f"model.layers.{layer}.{_IN_BLOCKS[inner.removesuffix('.weight')]}.weight"


def their_config(config: ModelConfig) -> dict[str, Any]:
    """The config.json of a model with QK-norm (qwen3) or without (llama), fp32."""
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


def our_config(theirs: dict[str, Any], path: Path) -> ModelConfig:
    """The model that a config.json describes.

    Raises:
        InputError: names the field of `path` that asks for what `Transformer` does not compute.
    """
    _require_computed(theirs, path)
    rope = _rope(theirs)
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
            qk_norm=theirs["model_type"] == "qwen3",
            tied=theirs.get("tie_word_embeddings", False),
            maximum_positions=theirs["max_position_embeddings"],
        )
    except KeyError as error:
        raise InputError(f"{path}: {error.args[0]} is missing") from None
    except ValidationError as error:
        raise InputError(f"{path}: {error.errors()[0]['msg']}") from None


def _require_computed(theirs: dict[str, Any], path: Path) -> None:
    model_type = theirs.get("model_type")
    if model_type not in _ARCHITECTURES:
        raise InputError(
            f"{path}: model_type is {model_type!r}; allowed: {', '.join(sorted(_ARCHITECTURES))}"
        )
    required = {
        "architectures": [_ARCHITECTURES[model_type]],
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "use_sliding_window": False,
        "quantization_config": None,
    }
    found = {key: theirs.get(key, value) for key, value in required.items()}
    required |= {"rope_type": "default", "partial_rotary_factor": 1.0, "layer_types": {"full_attention"}}
    found |= {
        "rope_type": next((kind for kind in _rope_types(theirs) if kind != "default"), "default"),
        "partial_rotary_factor": (_rope(theirs) | theirs).get("partial_rotary_factor", 1.0),
        "layer_types": set(theirs.get("layer_types") or ["full_attention"]),
    }
    for key, value in required.items():
        if found[key] != value:
            raise InputError(f"{path}: {key} is {found[key]!r}; only {value!r} is computed here")


def _rope_types(theirs: dict[str, Any]) -> list[str]:
    said = [theirs.get(key) or {} for key in ("rope_scaling", "rope_parameters")]
    return [rope.get("rope_type", rope.get("type", "default")) for rope in said]


def _rope(theirs: dict[str, Any]) -> dict[str, Any]:
    """What transformers 5 and earlier versions say of rotary positions."""
    return (theirs.get("rope_scaling") or {}) | (theirs.get("rope_parameters") or {})
