"""Continuation: where a document is parted, and which parts are a pair."""

import numpy as np
import pytest

from megasbp.pairing.continuation import continuation_pairs, split_continuation

# Token 1 ends a sentence, token 2 a paragraph, 0 neither.
STRENGTHS = np.array([0, 1, 2], np.int8)


def parts(tokens: list[int], maximum: int = 100) -> list[list[int]]:
    return [part.tolist() for part in split_continuation(np.array(tokens, np.uint16), maximum, STRENGTHS)]


def test_the_paragraph_border_nearest_the_middle_comes_before_any_sentence() -> None:
    assert parts([0, 0, 2, 0, 0, 1, 0, 0, 0, 0, 0]) == [[0, 0, 2], [0, 0, 1, 0, 0, 0, 0, 0]]
    assert parts([0, 2, 0, 2, 0, 0, 0, 0]) == [[0, 2, 0, 2], [0, 0, 0, 0]]


def test_without_a_paragraph_the_sentence_border_and_then_the_middle() -> None:
    assert parts([0, 0, 0, 0, 1, 0]) == [[0, 0, 0], [0, 1, 0]]  # the border would leave less than a quarter
    assert parts([0, 0, 1, 0, 0, 0, 0]) == [[0, 0, 1], [0, 0, 0, 0]]
    assert parts([0, 0, 0, 0, 0]) == [[0, 0], [0, 0, 0]]


def test_a_title_alone_is_no_beginning() -> None:
    tokens = [0, 2] + [0] * 5 + [1] + [0] * 8
    assert parts(tokens) == [tokens[:8], tokens[8:]]


def test_no_part_is_longer_than_the_maximum() -> None:
    generator = np.random.default_rng(0)
    for _ in range(300):
        count, maximum = int(generator.integers(0, 40)), int(generator.integers(1, 20))
        tokens = generator.integers(0, 3, size=count)
        found = split_continuation(tokens, maximum, STRENGTHS)
        assert all(1 <= len(part) <= maximum for part in found) or (count < 2)
        assert np.concatenate([*found, np.empty(0, int)]).tolist() == tokens.tolist()
        assert len(found) == 2 if 2 <= count <= 2 * maximum else len(found) >= min(count, 1)


def test_a_document_of_one_token_is_not_parted() -> None:
    assert parts([0]) == [[0]]
    assert parts([]) == []
    with pytest.raises(ValueError, match="maximum is 0"):
        parts([0, 0], 0)


def test_each_part_is_paired_with_the_next_of_its_document() -> None:
    seeds, targets = continuation_pairs(np.array([0, 0, 1, 2, 2, 2]))
    assert list(zip(seeds.tolist(), targets.tolist(), strict=True)) == [(0, 1), (3, 4), (4, 5)]
    assert len(continuation_pairs(np.array([], np.int64))[0]) == 0
