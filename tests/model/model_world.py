"""Models small enough to be compared number by number."""

from pathlib import Path
from typing import Any

import torch

from megasbp.model.config import ModelConfig
from megasbp.model.hugging_face import export_hugging_face, open_hugging_face
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


def export_model(model: Transformer, folder: Path, *arguments: Any) -> None:
    """Writes a model for transformers; further arguments as of `export_hugging_face`."""
    state = model.state_dict()

    def fill(tensors: dict[str, torch.Tensor]) -> None:
        for name, tensor in tensors.items():
            tensor.copy_(state[name])

    export_hugging_face(model.config, fill, folder, *arguments)


def import_model(folder: Path) -> Transformer:
    """The model of a Hugging Face folder, in memory."""
    weights = open_hugging_face(folder)
    model = Transformer(weights.config).eval()
    model.load_state_dict(
        {name: weights.read(path, name) for path, names in weights.files.items() for name in names}
    )
    return model
