"""Copied stretches of a document."""

from itertools import pairwise

import numpy as np
import pytest

from megasbp.overlap.copied import as_characters, copied_stretches
from megasbp.overlap.ngram_index import NgramIndex


def index(*documents: list[int]) -> NgramIndex:
    return NgramIndex.build([np.array(document) for document in documents], 3)


@pytest.mark.parametrize(
    ("tokens", "stretches"),
    [
        ([1, 2, 3, 4], [(0, 4)]),  # overlapping n-grams are one stretch
        ([9, 1, 2, 3, 9, 7, 8, 6, 9], [(1, 4), (5, 8)]),
        ([1, 2, 3, 7, 8, 6], [(0, 6)]),  # what touches is one
        ([1, 2, 9, 3, 4], []),
        ([1, 2], []),
        ([], []),
    ],
)
def test_by_hand(tokens, stretches):
    assert copied_stretches(np.array(tokens, np.int64), index([1, 2, 3, 4], [7, 8, 6])) == stretches


def test_lengths_are_those_of_the_coverage():
    generator = np.random.default_rng(0)
    corpus = index(generator.integers(0, 6, 120).tolist())
    for _ in range(200):
        tokens = generator.integers(0, 6, generator.integers(1, 60))
        stretches = copied_stretches(tokens, corpus)
        assert sum(end - first for first, end in stretches) == round(corpus.coverage(tokens) * len(tokens))
        assert all(left[1] < right[0] for left, right in pairwise(stretches))


def test_characters_of_several_bytes_are_not_parted():
    text = "aé漢b"  # one, two, three bytes and one; a token a byte
    tokens = np.frombuffer(text.encode(), np.uint8)

    def decode(part: np.ndarray) -> str:
        return part.tobytes().decode(errors="replace")

    assert as_characters([(0, 1), (1, 3), (3, 6), (6, 7)], tokens, decode) == [(0, 1), (1, 2), (2, 3), (3, 4)]
    assert as_characters([(2, 5)], tokens, decode) == [(1, 2)]
