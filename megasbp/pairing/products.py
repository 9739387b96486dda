"""Which rows may be near which queries: products in low precision propose, known to be wrong by so much.

A pair is left out only if its product, with the most by which it can be wrong, stays below what is asked for.
So whatever proposes, exact sums decide among all that matter: results do not depend on the processor.
"""

from typing import Protocol

import numpy as np
import torch

from megasbp import _C

# bfloat16 keeps 8 bits: a unit row moves by at most 2**-9, so by Cauchy-Schwarz the product of two by 2**-8,
# and its own rounding by 2**-9 more. The rest is for sums in float32 and lengths that are not quite 1.
_BFLOAT16_ERROR = 1.05 * (2.0**-8 + 2.0**-9)


class Columns(Protocol):
    """Rows that queries are compared with, batch after batch."""

    def close_pairs(
        self,
        queries: np.ndarray,
        limit: np.ndarray,
        *,
        row_limit: np.ndarray | None = None,
        best: int = 0,
        own_row: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Query and row, int64 [c], by query, then row: pairs that may count, and all of those that do.

        Args:
            queries: float32 or float16 [n, d]; a few thousand unit rows.
            limit: float32 [n]; a pair counts from this similarity on.
            row_limit: float32 [m]; or from this one on, the row's.
            best: a pair counts only if it may also be among the query's so many best, or reaches the row's
                limit; 0 for no such bound.
            own_row: int64 [n]; the row that is left out, outside [0, m) for none.
        """


def columns(rows: np.ndarray) -> Columns:
    """Columns for float32 or float16 [m, d] unit rows, made for the device at hand."""
    return BFloat16Columns(rows, "cuda") if torch.cuda.is_available() else Int8Columns(rows)


class Int8Columns:
    """On a CPU: 8-bit integers, each row at a scale of its own; how far that moves a row is measured."""

    def __init__(self, rows: np.ndarray) -> None:
        self._rows = _C.Int8Rows(rows, True, torch.get_num_threads())

    def close_pairs(
        self,
        queries: np.ndarray,
        limit: np.ndarray,
        *,
        row_limit: np.ndarray | None = None,
        best: int = 0,
        own_row: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """See `Columns`."""
        threads = torch.get_num_threads()
        query, row = _C.close_pairs(
            _C.Int8Rows(queries, False, threads),
            self._rows,
            np.ascontiguousarray(limit),
            np.full(len(self._rows), np.inf, np.float32) if row_limit is None else row_limit,
            np.full(len(queries), -1) if own_row is None else own_row,
            best,
            threads,
        )
        return query, row


class BFloat16Columns:
    """On a GPU: bfloat16."""

    def __init__(self, rows: np.ndarray, device: str) -> None:
        self._columns = torch.tensor(rows, device=device, dtype=torch.bfloat16).T

    def close_pairs(
        self,
        queries: np.ndarray,
        limit: np.ndarray,
        *,
        row_limit: np.ndarray | None = None,
        best: int = 0,
        own_row: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """See `Columns`."""
        device = self._columns.device
        products = torch.tensor(queries, device=device, dtype=torch.bfloat16) @ self._columns
        if own_row is not None:
            inside = np.flatnonzero((own_row >= 0) & (own_row < products.shape[1]))
            products[torch.from_numpy(inside), torch.from_numpy(own_row[inside])] = -torch.inf
        lowest = torch.from_numpy(limit - np.float32(_BFLOAT16_ERROR)).to(device)
        if 0 < best < products.shape[1]:
            # The k-th best product is at most one error above the k-th best similarity.
            kth = products.topk(best, dim=1).values[:, -1].float() - 2 * _BFLOAT16_ERROR
            lowest = torch.maximum(lowest, kth)
        lowest = lowest[:, None]
        if row_limit is not None:
            lowest = torch.minimum(
                lowest, torch.from_numpy(row_limit - np.float32(_BFLOAT16_ERROR)).to(device)
            )
        found = (products >= lowest).nonzero().cpu().numpy()
        pairs = found[:, 0], found[:, 1]
        if own_row is None:
            return pairs
        other = pairs[1] != own_row[pairs[0]]
        return pairs[0][other], pairs[1][other]
