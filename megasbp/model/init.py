"""Initial weights that have an address: element i of a parameter is a function of (seed, name, i)."""

import math

import torch

from megasbp.addressing import derive_key
from megasbp.kernels.philox import normal
from megasbp.model.config import ModelConfig
from megasbp.model.mup import initial_width
from megasbp.model.transformer import Transformer

# The last layers of the two branches of a block: their sum over all layers keeps the residual stream's scale
# (Radford et al., "Language models are unsupervised multitask learners", section 2.3).
_RESIDUAL_OUTPUTS = ("attention.output.weight", "feed_forward.down.weight")
# Elements made at a time: on a CPU their integer words stay in the cache; a device is given enough to do.
_CPU_CHUNK, _DEVICE_CHUNK = 2**16, 2**24


def initialize(model: Transformer, seed: int) -> None:
    """Fills every parameter of an unsharded model: norms with 1, the rest with addressed normal numbers.

    The standard deviation is that of `standard_deviation`.
    """
    for name, parameter in model.named_parameters():
        fill(parameter, name, model.config, seed, tuple(parameter.shape))


@torch.no_grad()
def fill(
    part: torch.Tensor,
    name: str,
    config: ModelConfig,
    seed: int,
    shape: tuple[int, ...],
    offset: tuple[int, ...] = (0, 0),
) -> None:
    """Fills a rectangle of a parameter, the rest of which may lie elsewhere.

    Args:
        part: contiguous; one dimension for norms, two for all others.
        name: of the parameter in the state dict.
        shape: of the whole parameter.
        offset: of the part's first element in it.
    """
    deviation = standard_deviation(name, initial_width(config, name), config.layers)
    if deviation == 0.0:
        part.fill_(1.0)
        return
    columns = torch.arange(part.shape[1], device=part.device) + offset[1]
    chunk = _CPU_CHUNK if part.device.type == "cpu" else _DEVICE_CHUNK
    height = max(1, chunk // max(1, part.shape[1]))
    for first in range(0, len(part), height):
        rows = part[first : first + height]
        numbers = torch.arange(len(rows), device=part.device) + first + offset[0]
        rows.copy_(initial_values(name, numbers[:, None] * shape[1] + columns, seed, deviation))


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


def initial_values(name: str, index: torch.Tensor, seed: int, deviation: float) -> torch.Tensor:
    """Elements of a parameter that is no norm.

    Args:
        name: of the parameter in the state dict.
        index: int64, any shape: which elements, counted in row-major order.
        deviation: of `standard_deviation`.

    Returns:
        fp32, shape of `index`.
    """
    return normal(derive_key(seed, "initial weights", name), index).mul_(deviation)
