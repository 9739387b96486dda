"""Random pairs: no fixed point, the same use of every document, and a reason when there is none."""

import itertools
from collections import Counter

import numpy as np
import pytest

from megasbp.errors import InputError
from megasbp.pairing.permutation import permute_seeds
from megasbp.pairing.table import pair_table


def permute(seeds: list | np.ndarray, targets: list | np.ndarray, seed: int = 0) -> tuple[list, list]:
    count = len(seeds)
    zeros = np.zeros(count)
    table = pair_table(np.array(seeds), np.array(targets), zeros, zeros, zeros.astype(np.int64), "true")
    permuted = permute_seeds(table, seed)
    assert permuted["source"].to_pylist() == ["permuted"] * count
    assert np.isnan(permuted["similarity"]).all()
    return permuted["seed_doc"].to_pylist(), permuted["target_doc"].to_pylist()


def check(old: list, targets: list, new: list) -> None:
    """What holds always."""
    assert Counter(new) == Counter(old)
    assert all(n not in (o, t) for n, o, t in zip(new, old, targets, strict=True))


def exists(seeds: tuple, targets: tuple) -> bool:
    return any(
        all(n not in (o, t) for n, o, t in zip(new, seeds, targets, strict=True))
        for new in itertools.permutations(seeds)
    )


def random_table(documents: int, per_document: int, generator: np.random.Generator) -> tuple[list, list]:
    """Neighbours in a ring of topics: every document is paired with the documents around it."""
    pairs = []
    for document in range(documents):
        near = generator.choice(np.arange(1, 4 * per_document), size=per_document, replace=False)
        pairs += [(document, int((document + step) % documents)) for step in near]
    seeds, targets = zip(*pairs, strict=True)
    return list(seeds), list(targets)


def test_two_rows_are_swapped() -> None:
    assert permute([0, 1], [2, 3]) == ([1, 0], [2, 3])


def test_a_realistic_table_has_no_true_pair_and_no_pair_twice() -> None:
    seeds, targets = random_table(300, 6, np.random.default_rng(0))
    new, kept = permute(seeds, targets)
    check(seeds, targets, new)
    assert kept == targets
    new_pairs = set(zip(new, targets, strict=True))
    assert len(new_pairs) == len(new)
    assert not new_pairs & set(zip(seeds, targets, strict=True))


def test_the_permutation_is_addressed_by_its_seed() -> None:
    seeds, targets = random_table(50, 3, np.random.default_rng(1))
    first, again, other = (permute(seeds, targets, seed)[0] for seed in (7, 7, 8))
    assert first == again
    # Two random permutations of 150 entries agree in about one; 20 would be a broken address.
    assert sum(a == b for a, b in zip(first, other, strict=True)) < 20


def test_every_seed_is_spread_over_unrelated_targets() -> None:
    # A control whose seeds move as blocks could still be learned: seed b <-> the neighbours of a.
    seeds, targets = random_table(200, 8, np.random.default_rng(2))
    new, _ = permute(seeds, targets)
    owners: dict[int, list[int]] = {}
    for n, o in zip(new, seeds, strict=True):
        owners.setdefault(n, []).append(o)
    # Eight draws among 200 old seeds: 7.9 distinct ones expected, 1 for blocks.
    assert np.mean([len(set(group)) for group in owners.values()]) > 7.5


def test_a_hub_in_exactly_half_of_the_rows_changes_sides() -> None:
    seeds = [0] * 6 + [1, 2, 3, 4, 5, 6]
    targets = list(range(10, 22))
    new, _ = permute(seeds, targets)
    check(seeds, targets, new)


def test_a_large_table_with_a_hub_in_half_of_its_rows_is_solved() -> None:
    count = 3000
    seeds = [0] * (count // 2) + list(range(1, count // 2 + 1))
    new, targets = permute(seeds, list(range(5000, 5000 + count)))
    check(seeds, targets, new)


@pytest.mark.parametrize(
    ("seeds", "targets", "reason"),
    [
        ([], [], "0 pairs cannot be permuted"),
        ([1], [2], "1 pairs cannot be permuted"),
        ([4, 4, 4], [1, 2, 3], "document 4 is the seed of 3 of 3 pairs and may be the new seed of only 0"),
        ([4, 4, 4, 1, 2], [5, 6, 7, 8, 9], "document 4 is the seed of 3 of 5 pairs .* new seed of only 2"),
        ([1, 2], [2, 1], "document 1 is the seed of 1 of 2 pairs and may be the new seed of only 0"),
        ([1, 2, 3], [2, 1, 9], "documents 1 and 2 are paired with each other in 2 of 3 pairs"),
    ],
)
def test_why_there_is_none_is_said(seeds: list, targets: list, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        permute(np.array(seeds, np.int64), np.array(targets, np.int64))


def test_every_small_table_is_solved_or_refused_as_it_should_be() -> None:
    generator = np.random.default_rng(3)
    outcomes = Counter()
    for _ in range(400):
        count = int(generator.integers(2, 7))
        seeds = generator.integers(0, 4, size=count).tolist()
        targets = generator.integers(0, 5, size=count).tolist()
        possible = exists(tuple(seeds), tuple(targets))
        outcomes[possible] += 1
        if possible:
            check(seeds, targets, permute(seeds, targets)[0])
        else:
            with pytest.raises(InputError):
                permute(seeds, targets)
    assert min(outcomes.values()) > 50
