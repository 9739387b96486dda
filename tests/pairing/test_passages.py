"""Passages: when they are needed, where documents are cut, and that nothing is lost."""

import numpy as np
import pytest

from megasbp.corpus.tokenizer import Tokenizer
from megasbp.pairing.passages import border_strengths, needs_passages, split_passages

# Token 1 ends a sentence, token 2 a paragraph.
STRENGTHS = np.array([0, 1, 2], dtype=np.int8)


def cuts(tokens: list[int], maximum: int) -> list[int]:
    return [len(passage) for passage in split_passages(np.array(tokens, dtype=np.int64), maximum, STRENGTHS)]


def test_passages_are_needed_above_a_fifth_of_documents_that_would_be_cut() -> None:
    # A context of 64 leaves a seed 30 tokens.
    assert not needs_passages(np.array([31, 30, 30, 30, 30]), 64)
    assert needs_passages(np.array([31, 31, 30, 30, 30]), 64)
    assert not needs_passages(np.array([], dtype=np.int32), 64)


def test_a_document_that_fits_stays_whole() -> None:
    assert cuts([0, 1, 0, 2], 4) == [4]
    assert cuts([], 4) == []


def test_without_borders_the_parts_are_equal() -> None:
    assert cuts([0] * 9, 8) == [5, 4]
    assert cuts([0] * 21, 8) == [7, 7, 7]


def test_a_paragraph_is_preferred_to_a_nearer_sentence() -> None:
    # The equal part ends after token 8; a sentence ends there, a paragraph one token later.
    assert cuts([0, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 0], 12) == [9, 7]


def test_of_equal_borders_the_nearest_and_then_the_earlier_is_taken() -> None:
    assert cuts([0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 1, 0, 0, 0, 0, 0], 12) == [7, 9]


def test_a_border_outside_the_window_is_left_alone() -> None:
    assert cuts([2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2], 12) == [8, 8]


@pytest.mark.parametrize("maximum", [1, 2, 3, 7, 30, 100])
def test_passages_fit_and_give_the_documents_back(maximum: int) -> None:
    generator = np.random.default_rng(maximum)
    documents = [
        generator.choice(3, size=size, p=[0.9, 0.08, 0.02]).astype(np.uint16)
        for size in generator.integers(0, 400, size=40)
    ]
    for document in documents:
        passages = split_passages(document, maximum, STRENGTHS)
        assert all(1 <= len(passage) <= maximum for passage in passages)
        assert (np.concatenate([np.empty(0, np.uint16), *passages]) == document).all()


def test_a_maximum_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="maximum is 0"):
        split_passages(np.array([0]), 0, STRENGTHS)


def test_borders_are_read_off_a_tokenizer() -> None:
    tokenizer = Tokenizer.train(iter(["One. Two!\nThree? 'Four.' Five\n\n"] * 3), 300)
    strengths = border_strengths(tokenizer)

    def after(text: str) -> int:
        return int(strengths[tokenizer.encode_batch([text])[0][-1]])

    assert (after("a."), after("a!"), after("a?"), after("a.'"), after("a\n"), after("a,"), after("a ")) == (
        1, 1, 1, 1, 2, 0, 0,
    )  # fmt: skip
    assert strengths[tokenizer.eos] == 0
