"""Matrix products of the blocks in 8-bit floating point, by torchao, on GPUs that have them.

Inputs, weights and gradients are scaled and rounded anew for each product (Micikevicius et al., "FP8 formats
for deep learning", arXiv 2209.05433): activations and weights to 4 bits of exponent and 3 of mantissa.
Parameters, their sums and the optimiser stay as they are; embedding and output layer are not touched.
"""

from typing import Any, Literal

import torch

from megasbp.errors import InputError
from megasbp.model.config import ModelConfig
from megasbp.model.layers import Linear
from megasbp.model.transformer import Transformer

Scaling = Literal["tensorwise", "rowwise"]

# Sides of a product are multiples of this.
_UNIT = 16


def fp8_problem(config: ModelConfig, tensor_ranks: int, device: torch.device) -> str | None:
    """Why the products of a model cannot be made in 8 bits here, and the mend; None where they can."""
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < (8, 9):
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else "a CPU"
        return (
            "training.fp8 needs a GPU with 8-bit products (compute capability 8.9 or later), this is "
            f"{name}; leave it out"
        )
    sizes = {
        "model.width": config.width,
        "model.feed_forward / parallel.tensor": config.feed_forward // tensor_ranks,
        "model.heads * model.head_dim / parallel.tensor": config.heads * config.head_dim // tensor_ranks,
        "model.kv_heads * model.head_dim / parallel.tensor": config.kv_heads
        * config.head_dim
        // tensor_ranks,
    }
    for name, size in sizes.items():
        if size % _UNIT:
            nearest = max(1, round(size / _UNIT)) * _UNIT
            return f"training.fp8 needs multiples of {_UNIT}, but {name} is {size}; make it {nearest}"
    return None


def multiply_in_fp8(model: Transformer, scaling: Scaling, emulate: bool = False) -> None:
    """Has the blocks of a model make their matrix products in 8 bits, in place.

    Args:
        scaling: "tensorwise" is faster, "rowwise" more exact.
        emulate: rounds to 8 bits and multiplies in the type of the inputs, on any device: for tests.

    Raises:
        InputError: torchao is not installed.
    """
    product = _Fp8Product(scaling, emulate)
    for block in model.blocks.values():
        for layer in block.modules():
            if isinstance(layer, Linear):
                layer.product = product


class _Fp8Product:
    def __init__(self, scaling: Scaling, emulate: bool) -> None:
        try:
            from torchao.float8 import Float8LinearConfig
            from torchao.float8.float8_linear import Float8Linear, matmul_with_hp_or_float8_args
        except ImportError:
            raise InputError("training.fp8 needs torchao; pip install torchao, or leave it out") from None
        config: Any = Float8LinearConfig.from_recipe_name(scaling)
        object.__setattr__(config, "emulate", emulate)
        with torch.device("meta"):
            layer = Float8Linear(_UNIT, _UNIT, bias=False, config=config)
        self._multiply, self._settings = matmul_with_hp_or_float8_args, (layer.linear_mm_config, config)

    def __call__(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """[..., inputs] and [outputs, inputs] -> [..., outputs], in the type of `x`."""
        product: torch.Tensor = self._multiply.apply(x, weight.t(), *self._settings)
        return product
