"""Products in low precision: no pair that counts is missing; whoever proposes, the same are nearest."""

from collections.abc import Callable

import numpy as np
import pytest

from megasbp.pairing import join
from megasbp.pairing.embedding import unit_rows
from megasbp.pairing.products import BFloat16Columns, Columns, Int8Columns

Make = Callable[[np.ndarray], Columns]


def bfloat16_columns(rows: np.ndarray) -> Columns:
    return BFloat16Columns(rows, "cpu")


def rows_of(kind: str, count: int, width: int, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    rows = generator.normal(size=(count, width))
    if kind == "spiky":
        # One large number takes the scale: the others are rounded coarsely.
        rows[:, 0] += 30
    if kind == "one-hot":
        rows = np.eye(width)[generator.integers(width, size=count)]
    return unit_rows(rows)


@pytest.mark.parametrize("make", [Int8Columns, bfloat16_columns])
@pytest.mark.parametrize("kind", ["gaussian", "spiky", "one-hot"])
@pytest.mark.parametrize(("queries", "rows", "width"), [(1, 1, 3), (50, 97, 64), (130, 300, 100)])
def test_no_pair_that_counts_is_missing(make: Make, kind: str, queries: int, rows: int, width: int) -> None:
    asking, stored = rows_of(kind, queries, width, 0), rows_of(kind, rows, width, 1)
    exact = np.round(asking.astype(np.float64) @ stored.T.astype(np.float64) * 2**20) / 2**20
    generator = np.random.default_rng(2)
    limit, row_limit = (
        np.quantile(exact, generator.uniform(0.9, 1, size=size)).astype(np.float32)
        for size in (queries, rows)
    )
    found = np.zeros(exact.shape, dtype=bool)
    found[make(stored).close_pairs(asking, limit, row_limit=row_limit)] = True
    assert not ((exact >= np.minimum(limit[:, None], row_limit)) & ~found).any()
    # Few others: none further below than both roundings can move a product.
    assert (exact[found] >= np.minimum(limit[:, None], row_limit)[found] - 0.25).all()


@pytest.mark.parametrize("make", [Int8Columns, bfloat16_columns])
@pytest.mark.parametrize("best", [1, 7, 40, 300])
def test_the_best_rows_are_among_the_pairs_but_for_the_own_one(make: Make, best: int) -> None:
    asking, stored = rows_of("gaussian", 60, 32, 0), rows_of("gaussian", 300, 32, 1)
    own = np.random.default_rng(2).integers(-1, 300, size=60)
    exact = asking.astype(np.float64) @ stored.T.astype(np.float64)
    exact[np.flatnonzero(own >= 0), own[own >= 0]] = -np.inf
    found = np.zeros(exact.shape, dtype=bool)
    nothing = np.full(60, -np.inf, np.float32)
    found[make(stored).close_pairs(asking, nothing, best=best, own_row=own)] = True
    wanted = np.argsort(-exact, axis=1)[:, :best]
    missing = ~np.take_along_axis(found, wanted, axis=1) & np.isfinite(
        np.take_along_axis(exact, wanted, axis=1)
    )
    assert not missing.any()
    assert not found[np.flatnonzero(own >= 0), own[own >= 0]].any()


def test_whoever_proposes_the_same_neighbours_come_out(monkeypatch: pytest.MonkeyPatch) -> None:
    # In 3 dimensions with few digits there are many exact ties.
    rows = unit_rows(np.round(np.random.default_rng(0).normal(size=(5000, 3)), 1) + 0.01)
    results = []
    for make in (Int8Columns, bfloat16_columns):
        monkeypatch.setattr(join, "columns", make)
        results.append(join.best_among(rows[:500], rows, 10, own_row=np.arange(500)))
    assert (results[0][0] == results[1][0]).all() and (results[0][1] == results[1][1]).all()


def test_half_precision_is_read_as_it_is() -> None:
    rows = rows_of("spiky", 200, 48, 0).astype(np.float16)
    rows[:, 5] = 3e-7  # denormal
    wide = rows.astype(np.float32)
    nothing = np.full(200, 0.9, np.float32)
    half, single = (Int8Columns(each).close_pairs(each, nothing) for each in (rows, wide))
    assert (half[0] == single[0]).all() and (half[1] == single[1]).all()
    assert (join.similarities(rows, rows, *half) == join.similarities(wide, wide, *half)).all()
