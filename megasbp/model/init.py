"""Initial weights that have an address: element i of a parameter is a function of (seed, name, i)."""

import math

import torch

from megasbp.addressing import derive_key
from megasbp.kernels.philox import normal
from megasbp.model.transformer import Transformer

STANDARD_DEVIATION = 0.02
# The last layers of the two branches of a block: their sum over all layers keeps the residual stream's scale
# (Radford et al., "Language models are unsupervised multitask learners", section 2.3).
_RESIDUAL_OUTPUTS = ("attention.output.weight", "feed_forward.down.weight")
# Elements made at a time; their integer words stay in the cache.
_CHUNK = 2**16


def initialize(model: Transformer, seed: int) -> None:
    """Fills every parameter of an unsharded model: norms with 1, the rest with addressed normal numbers.

    Standard deviation 0.02, divided by sqrt(2 * layers) where a branch joins the residual stream.
    """
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            for number, part in enumerate(parameter.view(-1).split(_CHUNK)):
                start = number * _CHUNK
                stop = start + len(part)
                part.copy_(initial_values(name, start, stop, seed, model.config.layers, part.device))


def initial_values(
    name: str, start: int, stop: int, seed: int, layers: int, device: torch.device | str = "cpu"
) -> torch.Tensor:
    """Elements [start, stop) of a parameter, counted in row-major order: a shard without the whole.

    Args:
        name: of the parameter in the state dict.
        layers: of the model.

    Returns:
        fp32 [stop - start].
    """
    if name.endswith("norm.weight"):
        return torch.ones(stop - start, device=device)
    deviation = STANDARD_DEVIATION
    if name.endswith(_RESIDUAL_OUTPUTS):
        deviation /= math.sqrt(2 * layers)
    index = torch.arange(start, stop, device=device)
    return normal(derive_key(seed, "initial weights", name), index).mul_(deviation)
