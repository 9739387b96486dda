"""Tie-aware recall: any of the tied rows is right, the same row twice is not."""

import numpy as np

from megasbp.pairing.recall import Truth, found_similarities, sample_truth, tie_aware_recall

NOTHING = -np.inf


def test_another_of_the_tied_rows_counts_where_naive_recall_would_not() -> None:
    corpus = np.eye(2, dtype=np.float32)[[0, 0, 0, 1]]
    truth = sample_truth(corpus[:1], corpus, 1, 1, exclude_same_row=False)
    row = np.array([[2]])
    assert truth.row.tolist() == [[0]] and not np.isin(row, truth.row).any()
    found = found_similarities(corpus[:1], corpus, truth, row, exclude_same_row=False)
    assert tie_aware_recall(found, truth.similarity).tolist() == [1.0]


def test_a_less_similar_row_does_not_count() -> None:
    assert tie_aware_recall(np.array([[0.9, 0.7]]), np.array([[0.9, 0.8]])).tolist() == [0.5]


def test_the_tolerance_is_below_the_last_true_similarity() -> None:
    found, true = np.array([[0.9, 0.79]]), np.array([[0.9, 0.8]])
    assert tie_aware_recall(found, true, tolerance=0.0).tolist() == [0.5]
    assert tie_aware_recall(found, true, tolerance=0.02).tolist() == [1.0]


def test_only_neighbours_that_exist_are_asked_for() -> None:
    true = np.array([[0.9, NOTHING], [NOTHING, NOTHING]])
    assert tie_aware_recall(np.array([[0.9, NOTHING], [NOTHING, NOTHING]]), true).tolist() == [1.0, 1.0]
    assert tie_aware_recall(np.full((2, 2), NOTHING), true).tolist() == [0.0, 1.0]


def test_the_query_itself_a_row_twice_and_no_row_are_worth_nothing() -> None:
    corpus = np.eye(3, dtype=np.float32)
    truth = Truth(np.array([1]), np.zeros((1, 4), np.float32), np.zeros((1, 4), np.int64))
    found = found_similarities(corpus, corpus, truth, np.array([[1, 0, 0, -1]]), exclude_same_row=True)
    assert np.isfinite(found).sum() == 1
