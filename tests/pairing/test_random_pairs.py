"""Random pairs of a corpus of any size: uniform, distinct, a pure function of (key, index)."""

import time

import numpy as np
import pytest
from scipy import stats

from megasbp.errors import InputError
from megasbp.pairing.random_pairs import random_pairs


def pairs(*arguments: int, same: bool, start: int = 0) -> list[tuple[int, int]]:
    return list(
        zip(*(side.tolist() for side in random_pairs(*arguments, same=same, start=start)), strict=True)
    )


@pytest.mark.parametrize("documents", [2, 3, 7, 80])
def test_all_pairs_of_a_small_corpus_come_once_and_none_with_itself(documents: int) -> None:
    found = pairs(documents, documents, documents * (documents - 1), 5, same=True)
    expected = {(a, b) for a in range(documents) for b in range(documents) if a != b}
    assert len(found) == len(expected)
    assert set(found) == expected


def test_between_two_datasets_equal_numbers_may_meet() -> None:
    assert sorted(pairs(3, 2, 6, 5, same=False)) == [(a, b) for a in range(3) for b in range(2)]


def test_a_pair_is_a_function_of_key_and_index_alone() -> None:
    whole = pairs(5000, 5000, 400, 9, same=True)
    assert pairs(5000, 5000, 100, 9, same=True) == whole[:100]
    assert pairs(5000, 5000, 60, 9, same=True, start=150) == whole[150:210]
    assert pairs(5000, 5000, 400, 10, same=True) != whole


def test_seeds_and_targets_are_uniform() -> None:
    seeds, targets = random_pairs(10_000, 10_000, 100_000, 3, same=True)
    for side in (seeds, targets, (targets - seeds) % 10_000 - 1):
        # 100 cells of a thousand expected each; below 1e-4 would be a broken draw (one in 3,000 keys fails).
        counts = np.bincount(side // 100, minlength=100)
        assert stats.chisquare(counts).pvalue > 1e-4


def test_six_hundred_million_documents_need_no_index_array() -> None:
    start = time.monotonic()
    seeds, targets = random_pairs(600_000_000, 600_000_000, 100_000, 1, same=True)
    assert time.monotonic() - start < 2  # 0.02 s alone; an array of 600M numbers takes more
    assert (seeds != targets).all()
    assert seeds.max() > 590_000_000 and targets.max() > 590_000_000
    assert len(np.unique(seeds * 600_000_000 + targets)) == 100_000


def test_more_pairs_than_there_are_is_refused() -> None:
    with pytest.raises(InputError, match="7 random pairs asked for, 3 seeds and 3 targets have 6; lower"):
        random_pairs(3, 3, 7, 0, same=True)
    with pytest.raises(InputError, match="1 random pairs asked for, 1 seeds and 1 targets have 0"):
        random_pairs(1, 1, 1, 0, same=True)
