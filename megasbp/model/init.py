"""Initial weights that have an address: element i of a parameter is a function of (seed, name, i)."""

import math

import torch

from megasbp.addressing import derive_key
from megasbp.kernels.philox import normal
from megasbp.model.mup import initial_width
from megasbp.model.transformer import Transformer

# The last layers of the two branches of a block: their sum over all layers keeps the residual stream's scale
# (Radford et al., "Language models are unsupervised multitask learners", section 2.3).
_RESIDUAL_OUTPUTS = ("attention.output.weight", "feed_forward.down.weight")
# Elements made at a time; their integer words stay in the cache.
_CHUNK = 2**16


def initialize(model: Transformer, seed: int) -> None:
    """Fills every parameter of an unsharded model: norms with 1, the rest with addressed normal numbers.

    The standard deviation is that of `standard_deviation`.
    """
    config = model.config
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            for number, part in enumerate(parameter.view(-1).split(_CHUNK)):
                start = number * _CHUNK
                stop = start + len(part)
                deviation = standard_deviation(name, initial_width(config, name), config.layers)
                part.copy_(initial_values(name, start, stop, seed, deviation, part.device))


def standard_deviation(name: str, width: int, layers: int) -> float:
    """Of a parameter's initial normal numbers; 0 for norms, which start at 1.

    sqrt(2 / (5 * width)) (Nguyen and Salazar, "Transformers without tears", 2019): 0.056 at width 128, 0.011
    at 3072; a fixed 0.02 is too small for narrow models, whose loss then stands still for the first steps.
    Divided by sqrt(2 * layers) where a branch joins the residual stream.
    """
    if name.endswith("norm.weight"):
        return 0.0
    deviation = math.sqrt(2 / (5 * width))
    return deviation / math.sqrt(2 * layers) if name.endswith(_RESIDUAL_OUTPUTS) else deviation


def initial_values(
    name: str, start: int, stop: int, seed: int, deviation: float, device: torch.device | str = "cpu"
) -> torch.Tensor:
    """Elements [start, stop) of a parameter, counted in row-major order: a shard without the whole.

    Args:
        name: of the parameter in the state dict.
        deviation: of `standard_deviation`.

    Returns:
        fp32 [stop - start].
    """
    if deviation == 0.0:
        return torch.ones(stop - start, device=device)
    index = torch.arange(start, stop, device=device)
    return normal(derive_key(seed, "initial weights", name), index).mul_(deviation)
