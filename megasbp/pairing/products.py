"""Which rows are near which queries: products in low precision propose, exact ones decide.

A pair is left out only if its product, with the most by which it can be wrong, stays below what is asked for.
Exact sums decide among all that is left, so results do not depend on the processor or on who proposed.
"""

from typing import Any, Protocol

import numpy as np
import torch

from megasbp import _C
from megasbp.pairing.picked_rows import PickedRows
from megasbp.pairing.similarity import best_of_each, similarities

# owner int64, row int64, similarity, each [c]
Candidates = tuple[np.ndarray, np.ndarray, np.ndarray]

# bfloat16 keeps 8 bits: a unit row moves by at most 2**-9, so by Cauchy-Schwarz the product of two by 2**-8,
# and its own rounding by 2**-9 more. The rest is for sums in float32 and lengths that are not quite 1.
_BFLOAT16_ERROR = 1.05 * (2.0**-8 + 2.0**-9)


class Columns(Protocol):
    """Rows that queries are compared with, batch after batch."""

    def improve(
        self,
        queries: np.ndarray | PickedRows,
        own_row: np.ndarray,
        first: int,
        similarity: np.ndarray,
        row: np.ndarray,
    ) -> None:
        """Puts the rows, numbered from `first` on, among the best of each query, in place.

        Args:
            queries: float32 or float16 [n, d], a few thousand unit rows.
            own_row: int64 [n], numbered alike; the row that is left out, -1 for none.
            similarity, row: float32 and int64 [n, k], C-contiguous; by falling similarity, then lower row;
                -inf and -1 where there are fewer.
        """

    def pairs(
        self, queries: np.ndarray | PickedRows, limit: np.ndarray, row_limit: np.ndarray | None
    ) -> Candidates:
        """The pairs that reach the limit of one of the two, in no order.

        Args:
            queries: float32 or float16 [n, d], a few thousand unit rows.
            limit: float32 [n].
            row_limit: float32 [m]; None where only the queries' limits count.

        Returns:
            query int64 [c], row int64 [c], similarity float64 [c] in multiples of 2**-20.
        """


def columns(rows: np.ndarray | PickedRows, threads: int | None = None) -> Columns:
    """Columns for float32 or float16 [m, d] unit rows, made for the device at hand.

    Args:
        threads: of a CPU; as many as torch has by default.
    """
    return BFloat16Columns(rows, "cuda") if torch.cuda.is_available() else Int8Columns(rows, threads)


class Int8Columns:
    """On a CPU: 8-bit integers, each row at a scale of its own; how far that moves a row is measured."""

    def __init__(self, rows: np.ndarray | PickedRows, threads: int | None = None) -> None:
        self._threads = threads or torch.get_num_threads()
        self._rows = _C.NearRows(_where_they_lie(rows), self._threads)

    def improve(
        self,
        queries: np.ndarray | PickedRows,
        own_row: np.ndarray,
        first: int,
        similarity: np.ndarray,
        row: np.ndarray,
    ) -> None:
        """See `Columns`."""
        self._rows.improve(_where_they_lie(queries), own_row, first, similarity, row, self._threads)

    def pairs(
        self, queries: np.ndarray | PickedRows, limit: np.ndarray, row_limit: np.ndarray | None
    ) -> Candidates:
        """See `Columns`."""
        if row_limit is None:
            row_limit = np.full(len(self._rows), np.inf, np.float32)
        query, row, similarity = self._rows.pairs(_where_they_lie(queries), limit, row_limit, self._threads)
        return query, row, similarity


def _where_they_lie(rows: np.ndarray | PickedRows) -> Any:
    """Rows as the C++ reads them."""
    return rows.parts if isinstance(rows, PickedRows) else np.ascontiguousarray(rows)


class BFloat16Columns:
    """On a GPU: bfloat16."""

    def __init__(self, rows: np.ndarray | PickedRows, device: str) -> None:
        self._rows = np.asarray(rows)
        self._columns = torch.tensor(self._rows, device=device, dtype=torch.bfloat16).T

    def improve(
        self,
        queries: np.ndarray | PickedRows,
        own_row: np.ndarray,
        first: int,
        similarity: np.ndarray,
        row: np.ndarray,
    ) -> None:
        """See `Columns`."""
        queries = np.asarray(queries)
        count, k = row.shape
        query, place = self._close_pairs(queries, similarity[:, -1], best=k, own_row=own_row - first)
        before, rank = np.nonzero(row >= 0)
        similarity[:], row[:] = best_of_each(
            np.concatenate([before, query]),
            np.concatenate([row[before, rank], place + first]),
            np.concatenate([similarity[before, rank], similarities(queries, self._rows, query, place)]),
            range(count),
            k,
        )

    def pairs(
        self, queries: np.ndarray | PickedRows, limit: np.ndarray, row_limit: np.ndarray | None
    ) -> Candidates:
        """See `Columns`."""
        queries = np.asarray(queries)
        query, row = self._close_pairs(queries, limit, row_limit=row_limit)
        similarity = similarities(queries, self._rows, query, row)
        reached = similarity >= limit[query]
        if row_limit is not None:
            reached |= similarity >= row_limit[row]
        return query[reached], row[reached], similarity[reached]

    def _close_pairs(
        self,
        queries: np.ndarray,
        limit: np.ndarray,
        *,
        row_limit: np.ndarray | None = None,
        best: int = 0,
        own_row: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Query and row, int64 [c]: all pairs that count, and a few more.

        A pair counts if it may reach its query's limit and, with `best`, be among the query's so many best;
        or if it may reach the row's limit.
        """
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
