"""Exact neighbours: what is nearest, ties, the own row, and too few rows."""

import numpy as np
import pytest

from megasbp.pairing.search import nearest_neighbours


def unit_vectors(rows: int, dimensions: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(rows, dimensions))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("exclude", [False, True])
@pytest.mark.parametrize("digits", [2, 9])
def test_neighbours_equal_a_float64_search(exclude: bool, digits: int) -> None:
    # In 3 dimensions with 2 digits there are many exact ties.
    dimensions = 3 if digits == 2 else 64
    corpus = np.round(unit_vectors(300, dimensions, 0), digits).astype(np.float32)
    products = np.round(corpus.astype(np.float64) @ corpus.astype(np.float64).T * 2**20) / 2**20
    if exclude:
        np.fill_diagonal(products, -np.inf)
    expected = np.argsort(-products, axis=1, kind="stable")[:, :7]
    similarity, index = nearest_neighbours(corpus, corpus, 7, exclude)
    assert (index == expected).all()
    assert (similarity == np.take_along_axis(products, expected, axis=1).astype(np.float32)).all()


def test_ties_are_broken_by_lower_index_beyond_what_the_first_search_returned() -> None:
    corpus = np.repeat(unit_vectors(3, 8, 1), 100, axis=0)
    _, index = nearest_neighbours(corpus, corpus, 4, exclude_same_row=True)
    group = np.arange(300) // 100 * 100
    expected = np.array([[i for i in range(g, g + 5) if i != row][:4] for row, g in enumerate(group)])
    assert (index == expected).all()


def test_without_exclusion_a_row_is_its_own_nearest_neighbour() -> None:
    corpus = unit_vectors(50, 16, 2)
    similarity, index = nearest_neighbours(corpus, corpus, 1, exclude_same_row=False)
    assert (index[:, 0] == np.arange(50)).all()
    np.testing.assert_allclose(similarity, 1, atol=2**-20)


def test_missing_neighbours_are_marked() -> None:
    corpus = unit_vectors(3, 4, 3)
    similarity, index = nearest_neighbours(corpus, corpus, 5, exclude_same_row=True)
    assert ((index >= 0).sum(axis=1) == 2).all()
    assert (similarity[:, 2:] == -np.inf).all() and (index[:, 2:] == -1).all()


def test_an_empty_corpus_has_no_neighbours() -> None:
    _, index = nearest_neighbours(unit_vectors(2, 4, 4), np.empty((0, 4), np.float32), 2, False)
    assert (index == -1).all()


@pytest.mark.parametrize(
    ("queries", "corpus", "k"),
    [
        (np.zeros((2, 4)), np.zeros((2, 4), np.float32), 1),
        (np.zeros((2, 4), np.float32), np.zeros((2, 5), np.float32), 1),
        (np.full((2, 4), np.nan, np.float32), np.zeros((2, 4), np.float32), 1),
        (np.zeros((2, 4), np.float32), np.zeros((2, 4), np.float32), 0),
    ],
)
def test_arrays_that_cannot_be_searched_are_refused(queries: np.ndarray, corpus: np.ndarray, k: int) -> None:
    with pytest.raises(ValueError):
        nearest_neighbours(queries, corpus, k, exclude_same_row=False)
