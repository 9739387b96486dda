"""One other trainer's steps on random tokens, in a process of its own.

python -m benchmarks.training_peers JSON prints {"tokens_per_second": [...], "memory": bytes} as its last
line. The model is the recipe's, with fp32 weights, products in bf16 on a GPU, torch's fused AdamW; a row is
one document.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.measuring import peak_memory
from benchmarks.training_step import random_batch
from megasbp.experiment.recipe import Recipe, load_recipe
from megasbp.model.hugging_face_config import their_config

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def transformers_model(recipe: Recipe, device: torch.device, liger: bool) -> tuple[nn.Module, Loss]:
    """transformers' Qwen3 (or Llama) with the recipe's shape, and its loss of tokens and labels."""
    import transformers

    values = their_config(recipe.model)
    kind = values["model_type"]
    if liger:
        from liger_kernel import transformers as liger_transformers

        getattr(liger_transformers, f"apply_liger_kernel_to_{kind}")()
    config = transformers.AutoConfig.for_model(**values)
    config._attn_implementation = "sdpa"
    with device:
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)

    def loss(tokens: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        # Their `labels` are shifted inside, ours are not: `shift_labels` takes them as they are.
        return model(input_ids=tokens, shift_labels=labels, labels=labels, use_cache=False).loss

    return model, loss if liger else torch.compile(loss)


def megatron_model(recipe: Recipe, device: torch.device) -> tuple[nn.Module, Loss]:
    """megatron-core's GPTModel from its own layers."""
    import os

    import torch.distributed as dist
    from megatron.core import parallel_state
    from megatron.core.models.gpt import GPTModel
    from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
    from megatron.core.tensor_parallel.random import model_parallel_cuda_manual_seed
    from megatron.core.transformer import TransformerConfig

    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": "29507"}
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", rank=0, world_size=1)
    parallel_state.initialize_model_parallel()
    if device.type == "cuda":
        model_parallel_cuda_manual_seed(0)
    shape = recipe.model
    config = TransformerConfig(
        num_layers=shape.layers,
        hidden_size=shape.width,
        num_attention_heads=shape.heads,
        num_query_groups=shape.kv_heads,
        kv_channels=shape.head_dim,
        ffn_hidden_size=shape.feed_forward,
        gated_linear_unit=True,
        activation_func=nn.functional.silu,
        add_bias_linear=False,
        normalization="RMSNorm",
        qk_layernorm=shape.qk_norm,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        bf16=device.type == "cuda",
        bias_activation_fusion=False,
        use_cpu_initialization=device.type == "cpu",
    )
    with device:
        model = GPTModel(
            config,
            get_gpt_layer_local_spec(qk_layernorm=shape.qk_norm, normalization="RMSNorm"),
            vocab_size=shape.vocabulary_size,
            max_sequence_length=recipe.training.sequence_length,
            share_embeddings_and_output_weights=shape.tied,
            position_embedding_type="rope",
            rotary_base=int(shape.rope_theta),
        )
    size = recipe.training.sequence_length
    positions = torch.arange(size, device=device)[None]
    hidden = torch.ones(1, 1, size, size, device=device, dtype=torch.bool).triu(1)

    def loss(tokens: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return model(tokens, positions.expand(len(tokens), -1), hidden, labels=labels).mean()

    return model, loss


def run(given: dict[str, Any]) -> dict[str, Any]:
    """The steps that `given` asks for, in micro-batches as large as fit, halved from the one given."""
    recipe = load_recipe(Path(given["recipe"]), given["overrides"])
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if given["name"].startswith("megatron"):
        model, loss = megatron_model(recipe, device)
    else:
        model, loss = transformers_model(recipe, device, "liger" in given["name"])
    model.train()
    training = recipe.training
    optimizer = torch.optim.AdamW(model.parameters(), lr=training.learning_rate, fused=True)
    batch = random_batch(recipe, given["rows"], 0)
    tokens, labels = batch.tokens.long().to(device), batch.labels.long().to(device)
    speeds: list[float] = []
    size = given["micro_batch"]
    while len(speeds) < given["warm_up"] + given["steps"]:
        if device.type == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        try:
            value = _gradients(loss, tokens, labels, size, training.compute_dtype)
        except torch.OutOfMemoryError:
            if size == 1 or speeds:
                raise
            size //= 2
            optimizer.zero_grad(set_to_none=True)
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            continue
        nn.utils.clip_grad_norm_(model.parameters(), training.gradient_clip, foreach=True)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        finite = bool(torch.isfinite(value))  # Waits for the device.
        if device.type == "cuda":
            torch.cuda.synchronize()
        if not finite:
            raise RuntimeError("the loss is not finite")
        speeds.append(tokens.numel() / (time.perf_counter() - start))
    memory = torch.cuda.max_memory_allocated() if device.type == "cuda" else peak_memory()
    return {"tokens_per_second": speeds[given["warm_up"] :], "memory": memory, "micro_batch": size}


def _gradients(
    loss: Loss, tokens: torch.Tensor, labels: torch.Tensor, size: int, dtype: torch.dtype
) -> torch.Tensor:
    """Of all rows, `size` at a time; returns the last loss."""
    parts = list(zip(tokens.split(size), labels.split(size), strict=True))
    for some_tokens, some_labels in parts:
        with torch.autocast(tokens.device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
            value = loss(some_tokens, some_labels)
        (value / len(parts)).backward()
    return value.detach()


if __name__ == "__main__":
    print(json.dumps(run(json.loads(sys.argv[1]))))
