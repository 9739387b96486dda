"""Products in low precision, decided by exact ones: what counts is found, whoever proposes."""

from collections.abc import Callable

import numpy as np
import pytest

from megasbp import _C
from megasbp.pairing import join
from megasbp.pairing.embedding import unit_rows
from megasbp.pairing.picked_rows import PickedRows
from megasbp.pairing.products import BFloat16Columns, Columns, Int8Columns

Make = Callable[[np.ndarray], Columns]


def products(queries: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return np.round(queries.astype(np.float64) @ rows.T.astype(np.float64) * 2**20) / 2**20


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
@pytest.mark.parametrize("precision", [np.float32, np.float16])
@pytest.mark.parametrize(("queries", "rows", "width"), [(1, 1, 3), (50, 97, 64), (130, 300, 100)])
def test_the_pairs_are_those_that_reach_a_limit(
    make: Make, kind: str, precision: type, queries: int, rows: int, width: int
) -> None:
    asking = rows_of(kind, queries, width, 0).astype(precision)
    stored = rows_of(kind, rows, width, 1).astype(precision)
    exact = products(asking, stored)
    generator = np.random.default_rng(2)
    limit, row_limit = (
        np.quantile(exact, generator.uniform(0.9, 1, size=size)).astype(np.float32)
        for size in (queries, rows)
    )
    lowest = np.minimum(limit[:, None], row_limit)
    for given, wanted in ((row_limit, exact >= lowest), (None, exact >= limit[:, None])):
        found = np.full(exact.shape, -np.inf)
        query, row, similarity = make(stored).pairs(asking, limit, given)
        found[query, row] = similarity
        assert len(query) == wanted.sum()
        assert (found == np.where(wanted, exact, -np.inf)).all()


@pytest.mark.parametrize("make", [Int8Columns, bfloat16_columns])
@pytest.mark.parametrize("best", [1, 7, 40, 300])
@pytest.mark.parametrize("digits", [1, 9])
def test_the_best_rows_are_found_in_several_steps_but_for_the_own_one(
    make: Make, best: int, digits: int
) -> None:
    # In 3 dimensions with 1 digit there are many exact ties.
    width = 3 if digits == 1 else 32
    asking = rows_of("gaussian", 60, width, 0)
    stored = unit_rows(np.round(rows_of("gaussian", 300, width, 1), digits) + 0.01)
    own = np.random.default_rng(2).integers(-1, 300, size=60)
    exact = products(asking, stored)
    exact[np.flatnonzero(own >= 0), own[own >= 0]] = -np.inf
    similarity, row = np.full((60, best), -np.inf, np.float32), np.full((60, best), -1)
    for first, last in ((0, 5), (5, 170), (170, 300)):
        make(stored[first:last]).improve(asking, own, first, similarity, row)
    wanted = np.argsort(-exact, axis=1, kind="stable")[:, :best]
    expected = np.take_along_axis(exact, wanted, axis=1)
    assert (similarity == expected.astype(np.float32)).all()
    assert (row == np.where(np.isfinite(expected), wanted, -1)).all()


def test_whoever_proposes_the_same_neighbours_come_out(monkeypatch: pytest.MonkeyPatch) -> None:
    # In 3 dimensions with few digits there are many exact ties.
    rows = unit_rows(np.round(np.random.default_rng(0).normal(size=(5000, 3)), 1) + 0.01)
    results = []
    for make in (Int8Columns, bfloat16_columns):
        monkeypatch.setattr(join, "columns", lambda rows, threads, make=make: make(rows))
        results.append(join.best_among(rows[:500], rows, 10, own_row=np.arange(500)))
    assert (results[0][0] == results[1][0]).all() and (results[0][1] == results[1][1]).all()


@pytest.mark.parametrize("make", [Int8Columns, bfloat16_columns])
def test_rows_picked_from_several_matrices_are_those_of_one(make: Make) -> None:
    whole = rows_of("gaussian", 90, 40, 0).astype(np.float16)
    generator = np.random.default_rng(1)
    places = [np.sort(generator.choice(30, size, replace=False)).astype(np.int32) for size in (20, 0, 30)]
    picked = PickedRows([(whole[30 * i : 30 * i + 30], place) for i, place in enumerate(places)])
    together = np.concatenate([whole[30 * i + place] for i, place in enumerate(places)])
    assert (np.asarray(picked) == together).all() and (np.asarray(picked[7:33]) == together[7:33]).all()
    limit, own = np.full(50, 0.3, np.float32), np.arange(50)
    results = []
    for rows in (picked, together):
        columns = make(rows)
        similarity, row = np.full((50, 5), -np.inf, np.float32), np.full((50, 5), -1)
        columns.improve(rows, own, 0, similarity, row)
        results.append((*columns.pairs(rows, limit, limit), similarity, row))
    assert len(results[0][0]) > 50
    assert all((one == other).all() for one, other in zip(*results, strict=True))


def test_positions_outside_a_matrix_and_matrices_of_two_kinds_are_refused() -> None:
    rows = rows_of("gaussian", 9, 8, 0)
    for position in (-1, 9):
        with pytest.raises(IndexError, match=rf"vectors: position {position} is outside \[0, 9\)"):
            _C.NearRows([(rows, np.array([0, position], np.int32))], 1)
    inside = np.array([0], np.int32)
    for other in (rows.astype(np.float16), rows[:, :7].copy()):
        with pytest.raises(ValueError, match="one type and width"):
            _C.NearRows([(rows, inside), (other, inside)], 1)


def test_half_precision_is_read_as_it_is() -> None:
    rows = rows_of("spiky", 200, 48, 0).astype(np.float16)
    rows[:, 5] = 3e-7  # denormal
    wide = rows.astype(np.float32)
    limit = np.full(200, 0.9, np.float32)
    half, single = (Int8Columns(each).pairs(each, limit, None) for each in (rows, wide))
    assert all((one == other).all() for one, other in zip(half, single, strict=True))
