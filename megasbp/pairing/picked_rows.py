"""Rows of several matrices by their positions, read where they lie: the blocks hold a partition's rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class PickedRows:
    """A matrix [n, d] that is not copied together.

    Attributes:
        parts: matrices, float16 or float32 [m_i, d], all of one type and width, and int32 [n_i] positions of
            rows in each; one part at least.
    """

    parts: Sequence[tuple[np.ndarray, np.ndarray]]

    def __len__(self) -> int:
        """n."""
        return sum(len(positions) for _, positions in self.parts)

    def __getitem__(self, rows: slice) -> "PickedRows":
        """Rows [start, stop)."""
        start, stop, step = rows.indices(len(self))
        assert step == 1
        parts, first = [], 0
        for matrix, positions in self.parts:
            parts.append((matrix, positions[max(start - first, 0) : max(stop - first, 0)]))
            first += len(positions)
        return PickedRows(parts)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """The rows copied together."""
        matrix = np.concatenate([matrix[positions] for matrix, positions in self.parts])
        return matrix if dtype is None else matrix.astype(dtype)
