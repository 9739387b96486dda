"""Contamination and density, counted by hand."""

import numpy as np
import pytest

from megasbp.evaluation.contamination import contamination
from megasbp.overlap.ngram_index import NgramIndex


def array(*tokens: int) -> np.ndarray:
    return np.array(tokens, dtype=np.uint16)


def test_a_document_counts_once_it_shares_a_run_of_the_width() -> None:
    sets = {
        "sbp": [array(1, 2, 3, 9), array(8, 1, 2, 9), array(5, 6, 7), array(4)],
        "unique": [array(30, 31, 32)],
        "none": [],
    }
    tests = {"test": [array(1, 2, 3, 4), array(5, 6)], "benchmark": [array(30, 31, 32, 33), array(5, 6, 7)]}
    assert contamination(sets, tests, 3) == {
        "test": {"documents": 2, "short": 1, "shares": {"sbp": 0.25, "unique": 0.0, "none": None}},
        "benchmark": {"documents": 2, "short": 0, "shares": {"sbp": 0.25, "unique": 1.0, "none": None}},
    }


def test_density_is_the_mean_length_of_the_fragment_a_token_lies_in() -> None:
    index = NgramIndex.build([np.arange(100, dtype=np.uint16), np.arange(200, 300, dtype=np.uint16)], 3)
    # Ten tokens, of which five and three are copied in one piece each.
    document = array(1, 2, 3, 4, 5, 999, 201, 202, 203, 998)
    assert index.fragments(document).tolist() == [5, 3]
    assert index.density(document) == pytest.approx((25 + 9) / 10)
    assert index.coverage(document) == pytest.approx(8 / 10)
    assert (index.density(array(1, 2)), index.coverage(array()), index.longest(array())) == (0, 0, 0)


def test_fragments_that_overlap_share_no_token() -> None:
    # 1 2 3 4 and 3 4 5 6 are in the corpus, 2 3 4 5 6 in one piece is not: 2 3 4 5 has no 4-gram of it.
    index = NgramIndex.build([array(1, 2, 3, 4), array(3, 4, 5, 6)], 4)
    document = array(1, 2, 3, 4, 5, 6)
    assert index.fragments(document).tolist() == [4, 2]
    assert (index.coverage(document), index.longest(document)) == (1.0, 4)


def test_fragments_add_up_to_the_tokens_that_are_covered() -> None:
    generator = np.random.default_rng(0)
    corpus = generator.integers(0, 6, size=200)
    index = NgramIndex.build([corpus], 4)
    for _ in range(50):
        document = generator.integers(0, 6, size=60)
        covered = np.zeros(60, bool)
        for place in np.flatnonzero(index.contains(document)):
            covered[place : place + 4] = True
        assert index.fragments(document).sum() == covered.sum()
        assert index.coverage(document) == covered.mean()
