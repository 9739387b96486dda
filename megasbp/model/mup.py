"""Maximal update parametrisation: the learning rate chosen at one width holds at others.

Yang et al., "Tensor Programs V", arXiv 2203.03466, table 8, for Adam; width grows by heads and feed-forward
width at a constant head dimension.

- Matrices inside the blocks: initial deviation falls with the root of the width (as it always does here), the
  learning rate with base / width; weight decay, which AdamW multiplies with the rate, grows by as much, so
  that a step takes the same share of a weight at every width.
- Embedding and output layer: deviation and learning rate of the base width; nothing is scaled behind the
  embedding, and the states before the output layer are multiplied with base / width. That holds for a tied
  table as it is, and the final norm's weight takes the factor in where a model is exported.
- Attention divides by the root of the head dimension, which does not grow.
- Norms: as they are.
"""

from megasbp.model.config import ModelConfig


def output_multiplier(config: ModelConfig) -> float:
    """Of the states that the output layer reads."""
    return _base_over_width(config)


def rate_multiplier(config: ModelConfig, name: str) -> float:
    """Of a parameter's learning rate; its weight decay is divided by it.

    Args:
        name: of the parameter in the state dict.
    """
    inside = name.startswith("blocks.") and not name.endswith("norm.weight")
    return _base_over_width(config) if inside else 1.0


def initial_width(config: ModelConfig, name: str) -> int:
    """The width of which a parameter has the initial deviation."""
    return config.width if name.startswith("blocks.") else config.mup_base_width or config.width


def _base_over_width(config: ModelConfig) -> float:
    return (config.mup_base_width or config.width) / config.width
