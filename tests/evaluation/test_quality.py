"""Quality figures of tiny documents, computed by hand."""

import json

import numpy as np
import pytest

from megasbp.errors import InputError
from megasbp.evaluation.quality import quality


def array(*tokens: int) -> np.ndarray:
    return np.array(tokens, dtype=np.uint16)


def test_counts_and_lengths_are_those_observed() -> None:
    documents = [np.arange(n, dtype=np.uint16) for n in range(1, 21)]
    figures = quality(documents, width=3, characters=[2 * n for n in range(1, 21)])
    assert (figures["documents"], figures["tokens"]) == (20, 210)
    expected = {"mean": 10.5, "p5": 1, "p25": 5, "p50": 10, "p75": 15, "p95": 19, "maximum": 20}
    assert figures["length_tokens"] == expected
    assert figures["length_characters"]["maximum"] == 40


def test_a_repeated_shingle_is_repetition() -> None:
    figures = quality([array(1, 2, 3, 1, 2, 3), array(1, 2, 3, 1, 2, 4), array(1, 2)], width=3)
    assert figures["repeated_share"] == pytest.approx(1 / 3)


def test_copies_after_the_first_are_near_duplicates() -> None:
    one, other = np.arange(40, dtype=np.uint16), np.arange(100, 140, dtype=np.uint16)
    figures = quality([one, other, one, one], width=5)
    assert figures["near_duplicate_share"] == 0.5


def test_distinct_ngrams() -> None:
    figures = quality([array(1, 2, 1, 2), array(1, 2)], width=3)
    assert figures["distinct"] == {"1": 2 / 6, "2": 2 / 4, "4": 1.0}


def test_documents_too_short_for_an_ngram_have_no_share() -> None:
    figures = quality([array(1), array(2)], width=3, corpus=[array(1)])
    assert figures["distinct"]["2"] is None and figures["novel"]["2"] is None


def test_copying_of_the_seed() -> None:
    seeds = [array(1, 2, 3, 4, 5), array(7, 7, 7, 7)]
    # The first has 3 of its 4 tokens in a shingle of its seed, the second none of its own seed.
    figures = quality([array(2, 3, 4, 9), array(1, 2, 3, 4)], seeds, width=3)
    assert figures["seed_copy"] == {"mean_coverage": 0.375, "copied_share": 0.5}


def test_copying_of_the_corpus_and_novelty() -> None:
    corpus = [array(1, 2, 3, 4, 5, 6), array(20, 21, 22)]
    documents = [array(1, 2, 3, 4, 9, 9), array(30, 31, 32)]
    figures = quality(documents, None, corpus, width=3)
    assert figures["corpus_copy"] == {
        "mean_coverage": pytest.approx((4 / 6 + 0) / 2),
        "copied_share": 0.5,
        "longest": {"mean": 2.0, "p95": 4, "maximum": 4},
    }
    # Bigrams: 12 23 34 known, 49 99 30-31 31-32 not. Of three 4-grams one is known; there is no 8-gram.
    assert figures["novel"] == {"2": pytest.approx(4 / 7), "4": pytest.approx(2 / 3), "8": None}
    assert figures["seed_copy"] is None


def test_figures_are_json() -> None:
    figures = quality([array(1, 2, 3)], [array(1, 2)], [array(1, 2)], characters=[9])
    assert json.loads(json.dumps(figures)) == figures


def test_no_documents_and_lists_of_other_lengths_are_refused() -> None:
    with pytest.raises(InputError, match="no documents"):
        quality([])
    with pytest.raises(ValueError, match="seeds has 2 entries, documents 1"):
        quality([array(1)], [array(1), array(2)])
