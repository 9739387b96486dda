"""Queries against the rows of one partition: a matrix product in low precision proposes, exact sums decide.

The product is wrong by at most `_ERROR`, so a pair whose product lies further than that below a query's limit
cannot count; every other pair is summed again in float64. The result is thus exact, and its bytes do not
depend on the bits of the product, which change with tiles, threads and device.
"""

import numpy as np
import torch

from megasbp import _C
from megasbp.pairing.similarity import similarities

# bfloat16 keeps 8 bits: a unit row moves by at most 2**-9, so by Cauchy-Schwarz the product of two by 2**-8,
# and its own rounding by 2**-9 more. The rest is for sums in float32 and lengths that are not quite 1.
_ERROR = np.float32(1.05 * (2.0**-8 + 2.0**-9))
_QUERIES_AT_ONCE = 2048
_ROWS_AT_ONCE = 4096
_GROUPS = 64
_QUERIES_STEP = 256
_COLUMNS_STEP = 128


def best_among(
    queries: np.ndarray, corpus: np.ndarray, k: int, *, own_row: np.ndarray | None = None, device: str = "cpu"
) -> tuple[np.ndarray, np.ndarray]:
    """The k corpus rows of largest inner product with each query, largest first, ties by lower row.

    Args:
        queries: float32 [n, d], unit rows.
        corpus: float32 [m, d], unit rows.
        k: neighbours per query.
        own_row: int64 [n], the corpus row that is the query itself and no neighbour; -1 for none.
        device: torch device of the matrix product.

    Returns:
        similarity float32 [n, k], in multiples of 2**-20, and row int64 [n, k]; -inf and -1 where the corpus
        has fewer than k other rows.
    """
    similarity = np.full((len(queries), k), -np.inf, dtype=np.float32)
    row = np.full((len(queries), k), -1, dtype=np.int64)
    for first in range(0, len(corpus), _ROWS_AT_ONCE):
        part = corpus[first : first + _ROWS_AT_ONCE]
        columns = _Columns(_writable(part), device)
        for start in range(0, len(queries), _QUERIES_AT_ONCE):
            block = slice(start, min(start + _QUERIES_AT_ONCE, len(queries)))
            products = columns.products(_writable(queries[block]))
            if own_row is not None:
                own = own_row[block] - first
                inside = np.flatnonzero((own >= 0) & (own < len(part)))
                products[torch.from_numpy(inside), torch.from_numpy(own[inside])] = -torch.inf
            limit = similarity[block, -1] - _ERROR
            if first == 0 and len(part) > k:
                # The k-th best product is at most one error above the k-th best similarity.
                limit = _best_products(products, k) - 2 * _ERROR
            queried, found = _above(products, limit)
            if own_row is not None:
                other = found + first != own_row[block][queried]
                queried, found = queried[other], found[other]
            exact = similarities(queries[block], part, queried, found)
            similarity[block], row[block] = _merge(
                similarity[block], row[block], queried, exact, found + first
            )
    return similarity, row


class Partition:
    """A partition's rows, ready to be joined with one batch of queries after the other.

    Args:
        vectors: float16 [m, d], rows of length 1.
        limit: float32 [m]: pairs of at least this similarity count for the row as a query of its own; None
            where the rows ask for nothing.
        device: torch device of the matrix product.
    """

    def __init__(self, vectors: torch.Tensor, limit: np.ndarray | None, device: str = "cpu") -> None:
        self._vectors = vectors.float().numpy()
        self._columns = _Columns(vectors, device)
        self._limit = None if limit is None else limit - _ERROR

    def pairs(self, queries: torch.Tensor, limit: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Pairs that may be similar enough for the query or for the row: all that are, and a few more.

        Args:
            queries: float16 [n, d], rows of length 1; a few thousand.
            limit: float32 [n]; pairs of at least this similarity count.

        Returns:
            query int64 [c], row int64 [c], similarity float64 [c] in multiples of 2**-20.
        """
        products = self._columns.products(queries)
        queried, found = _above(products, limit - _ERROR, self._limit)
        return queried, found, similarities(queries.float().numpy(), self._vectors, queried, found)


def best_per_owner(
    owner: np.ndarray, found: np.ndarray, similarity: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The best k different rows found for each owner, ordered by owner, falling similarity, lower row.

    Args:
        owner, found: int64 [c].
        similarity: [c]; equal for equal (owner, found).
    """
    order = np.lexsort((found, -similarity, owner))
    owner, found, similarity = owner[order], found[order], similarity[order]
    fresh = np.ones(len(owner), dtype=bool)
    fresh[1:] = (owner[1:] != owner[:-1]) | (found[1:] != found[:-1])
    owner, found, similarity = owner[fresh], found[fresh], similarity[fresh]
    rank = np.arange(len(owner)) - np.searchsorted(owner, owner, side="left")
    best = rank < k
    return owner[best], found[best], similarity[best]


class _Columns:
    """The rows of one side of many matrix products, in bfloat16.

    Both sides are filled up with zeros to few sizes: oneDNN keeps what it has compiled for each shape it
    meets, which came to 660 MB over the partitions of 135,682 rows.
    """

    def __init__(self, rows: torch.Tensor, device: str) -> None:
        self._count = len(rows)
        self._columns = _filled(rows.to(device, torch.bfloat16), _COLUMNS_STEP).T

    def products(self, queries: torch.Tensor) -> torch.Tensor:
        """bfloat16 [n, m], contiguous."""
        filled = _filled(queries.to(self._columns.device, torch.bfloat16), _QUERIES_STEP)
        return (filled @ self._columns)[: len(queries), : self._count].contiguous()


def _filled(rows: torch.Tensor, step: int) -> torch.Tensor:
    return torch.nn.functional.pad(rows, (0, 0, 0, -len(rows) % step))


def _writable(rows: np.ndarray) -> torch.Tensor:
    # torch takes no memory that may not be written.
    return torch.from_numpy(np.require(rows, requirements="W"))


def _best_products(products: torch.Tensor, k: int) -> np.ndarray:
    """float32 [n]: at most the k-th largest product of each row, and near it.

    The k-th largest of the maxima of 64 groups of columns, which is cheaper where there are many.
    """
    if products.shape[1] >= 2 * _GROUPS and 2 * k <= _GROUPS:
        whole = products.shape[1] // _GROUPS * _GROUPS
        products = products[:, :whole].unflatten(1, (-1, _GROUPS)).amax(dim=1)
    return products.topk(k, dim=1).values[:, -1].float().cpu().numpy()


def _above(
    products: torch.Tensor, row_limit: np.ndarray, column_limit: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns, int64 in row-major order, where a product reaches its row's or its column's limit."""
    if column_limit is None:
        column_limit = np.full(products.shape[1], np.inf, dtype=np.float32)
    if products.device.type == "cpu":
        bits = products.view(torch.int16).numpy().view(np.uint16)
        flat = _C.positions_above(bits, row_limit, column_limit, torch.get_num_threads())
    else:
        rows, columns = (torch.from_numpy(limit).to(products.device) for limit in (row_limit, column_limit))
        flat = (products >= torch.minimum(rows[:, None], columns)).flatten().nonzero()[:, 0].cpu().numpy()
    return np.divmod(flat, products.shape[1])


def _merge(
    similarity: np.ndarray, row: np.ndarray, queried: np.ndarray, exact: np.ndarray, found: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Merges candidates, in rising order of query and row, into the best [n, k] of lower rows."""
    n, k = similarity.shape
    counts = np.bincount(queried, minlength=n)
    starts = np.cumsum(counts) - counts
    width = k + int(counts.max(initial=0))
    all_similarity = np.full((n, width), -np.inf, dtype=np.float32)
    all_rows = np.full((n, width), -1, dtype=np.int64)
    all_similarity[:, :k], all_rows[:, :k] = similarity, row
    place = k + np.arange(len(queried)) - starts[queried]
    all_similarity[queried, place], all_rows[queried, place] = exact, found
    # Stable: among equal similarities the lower row stays first.
    order = np.argsort(-all_similarity, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(all_similarity, order, axis=1), np.take_along_axis(all_rows, order, axis=1)
