"""A batch: what the model reads and what it has to predict."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch

MASKED = -100
PADDING = -1


@dataclass(frozen=True)
class Batch:
    """Rows of segments. Document borders, positions and the label mask are data; the model knows no recipe.

    int32: filling a batch, and copying it to a device, take the time of its bytes.

    Attributes:
        tokens: int32 [B, S]; padding is the end-of-document token.
        labels: int32 [B, S], the token that follows within the segment; -100 where nothing is predicted: at
            each segment's last token, on padding, and wherever the source masks.
        positions: int32 [B, S], from 0 in each segment.
        segments: int32 [B, S], 0, 1, 2, ... along each row; -1 on padding.
    """

    tokens: torch.Tensor
    labels: torch.Tensor
    positions: torch.Tensor
    segments: torch.Tensor

    @classmethod
    def from_array(cls, arrays: np.ndarray) -> Self:
        """Takes int32 [4, B, S], in the order of the attributes, over without a copy."""
        return cls(*torch.from_numpy(arrays))

    def to(self, device: torch.device | str) -> "Batch":
        """The batch on a device."""
        # Towards the host an asynchronous copy could be read before it has arrived.
        non_blocking = torch.device(device).type != "cpu"
        return Batch(*(tensor.to(device, non_blocking=non_blocking) for tensor in self._tensors()))

    def rows(self, start: int, stop: int) -> "Batch":
        """Rows [start, stop), as views: a micro-batch."""
        return Batch(*(tensor[start:stop] for tensor in self._tensors()))

    @property
    def input_tokens(self) -> int:
        """Tokens that are not padding. Ask before `to`: on an accelerator the answer waits for the device."""
        return int((self.segments != PADDING).sum())

    @property
    def valid_tokens(self) -> int:
        """Tokens that have a label. Ask before `to`: on an accelerator the answer waits for the device."""
        return int((self.labels != MASKED).sum())

    @property
    def has_whole_rows(self) -> bool:
        """Whether each row is one segment. Ask before `to`, for the same reason."""
        return bool((self.segments == self.segments[:, :1]).all())

    def _tensors(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        return self.tokens, self.labels, self.positions, self.segments
