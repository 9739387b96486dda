"""Leaf modules: each holds fp32 parameters and computes in the type of its input."""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

from megasbp.kernels.rms_norm import add_rms_norm, rms_norm

# Of inputs [..., inputs] and a weight [outputs, inputs] of one type.
Product = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class Linear(nn.Module):
    """x @ weight.T, without a bias.

    Attributes:
        weight: fp32 [outputs, inputs].
        product: as `functional.linear`.
    """

    product: Product = staticmethod(functional.linear)

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., inputs] -> [..., outputs], in the type of `x`."""
        return self.product(x, self.weight.to(x.dtype))


class Embedding(nn.Module):
    """Rows of a table.

    Attributes:
        weight: fp32 [vocabulary, width].
    """

    def __init__(self, vocabulary_size: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(vocabulary_size, width))

    def forward(self, tokens: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """int32 or int64 [B, S] -> `dtype` [B, S, D]."""
        return functional.embedding(tokens, self.weight).to(dtype)


class RMSNorm(nn.Module):
    """Root-mean-square norm over the last dimension.

    Attributes:
        weight: fp32 [size].
        epsilon: added to the mean square.
    """

    def __init__(self, size: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(size))
        self.epsilon = epsilon

    @property
    def factors(self) -> torch.Tensor:
        """The weight as kernels take it, a plain tensor."""
        return self.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., size], shape and type kept."""
        return rms_norm(x, self.factors, self.epsilon)

    def after_sum(self, x: torch.Tensor, residual: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """x + residual, and the norm of it."""
        return add_rms_norm(x, residual, self.factors, self.epsilon)
