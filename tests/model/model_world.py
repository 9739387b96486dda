"""Models small enough to be compared number by number."""

from typing import Any

import torch

from megasbp.model.config import ModelConfig
from megasbp.model.init import initialize
from megasbp.model.transformer import Transformer


def small_config(**changes: Any) -> ModelConfig:
    """Grouped queries, and heads that do not add up to the width."""
    return ModelConfig(
        **{
            "vocabulary_size": 97,
            "layers": 3,
            "width": 48,
            "heads": 6,
            "kv_heads": 2,
            "head_dim": 16,
            "feed_forward": 64,
            "maximum_positions": 64,
            **changes,
        }
    )


def small_model(seed: int = 1, **changes: Any) -> Transformer:
    """Weights large enough that every token matters to the next ones, norms that are not all one."""
    model = Transformer(small_config(**changes))
    initialize(model, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(5)
            else:
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def random_tokens(rows: int, size: int, vocabulary: int = 97, seed: int = 0) -> torch.Tensor:
    return torch.randint(vocabulary, (rows, size), generator=torch.Generator().manual_seed(seed))


def counting_positions(rows: int, size: int) -> torch.Tensor:
    return torch.arange(size).expand(rows, size)
