"""What a device's own matrix products, attention and copy would allow a training step to be."""

from typing import Any

import torch
from torch.nn import functional

from benchmarks.kernel_timing import copy_rate, seconds
from megasbp.experiment.recipe import Recipe
from megasbp.model.flops import parameter_count

# Bytes of a parameter's update, in fp32: weight, gradient and two moments read, all but the gradient written;
# the gradient read for its norm, and read and written to be clipped.
_UPDATE_BYTES = 28 + 4 + 8
# Streams of the width, of the heads and of the inner width that a block's kernels move for a token, forwards
# and backwards, in bf16: two norms, one with its sum, and the second sum; QK-norm with rotation; SwiGLU.
_WIDTH_STREAMS, _HEAD_STREAMS, _INNER_STREAMS = 2 + 3 + 4 + 4 + 6, 5, 8


def ceiling(recipe: Recipe, rows: int, device: torch.device) -> dict[str, Any]:
    """Seconds of each part of a step by itself, and the tokens/s that their sum implies.

    Products are timed at the model's own shapes, three for each matrix; attention with torch's best backend.
    """
    model, size = recipe.model, recipe.training.sequence_length
    tokens = rows * size
    copy = copy_rate(device.type)
    queries, keys = model.heads * model.head_dim, model.kv_heads * model.head_dim
    matrices = [
        (queries, model.width, 1),
        (keys, model.width, 2),
        (model.width, queries, 1),
        (model.feed_forward, model.width, 2),
        (model.width, model.feed_forward, 1),
    ]
    products = model.layers * sum(count * _product(tokens, *shape, device) for *shape, count in matrices)
    products += _product(tokens, model.vocabulary_size, model.width, device)
    streams = (
        _WIDTH_STREAMS * model.width + _HEAD_STREAMS * (queries + keys) + _INNER_STREAMS * model.feed_forward
    )
    parts = {
        "products": products,
        "attention": model.layers
        * _attention(rows, size, model.heads, model.kv_heads, model.head_dim, device),
        "pointwise": model.layers * tokens * 2 * streams / copy,
        "update": parameter_count(model) * _UPDATE_BYTES / copy,
    }
    return {
        **{f"{name}_seconds": round(value, 4) for name, value in parts.items()},
        "tokens_per_second": round(tokens / sum(parts.values())),
    }


def _product(tokens: int, outputs: int, inputs: int, device: torch.device) -> float:
    """Seconds of a linear layer's three products."""
    options: dict[str, Any] = {"device": device, "dtype": torch.bfloat16}
    x, weight = torch.randn(tokens, inputs, **options), torch.randn(outputs, inputs, **options)
    grad = torch.randn(tokens, outputs, **options)
    calls = (lambda: x @ weight.t(), lambda: grad @ weight, lambda: grad.t() @ x)
    return sum(seconds(call, device.type) for call in calls)


def _attention(rows: int, size: int, heads: int, kv_heads: int, head_dim: int, device: torch.device) -> float:
    """Seconds of causal attention, forwards and backwards, torch's fastest backend of those that take it."""
    q = torch.randn(rows, heads, size, head_dim, device=device, dtype=torch.bfloat16, requires_grad=True)
    k, v = (
        torch.randn(rows, kv_heads, size, head_dim, device=device, dtype=torch.bfloat16, requires_grad=True)
        for _ in range(2)
    )
    backends = torch.nn.attention.SDPBackend
    found = []
    for backend in (backends.CUDNN_ATTENTION, backends.FLASH_ATTENTION):
        with torch.nn.attention.sdpa_kernel(backend):
            try:
                mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
            except RuntimeError:
                continue  # This backend does not take it.
            grad = torch.randn_like(mixed)
            forwards = seconds(
                lambda: functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True),
                device.type,
            )
            backwards = seconds(
                lambda m=mixed, g=grad: torch.autograd.grad(m, (q, k, v), g, retain_graph=True), device.type
            )
            found.append(forwards + backwards)
    return min(found)
