"""The walk under the caps in C++ is the plain walk."""

from collections import Counter

import numpy as np
import pytest

import megasbp._C as core


def plain_walk(
    seeds: np.ndarray, targets: np.ndarray, per_seed: int, per_target: int, values: np.ndarray | None
) -> tuple[list[int], int, int]:
    order = range(len(seeds)) if values is None else np.lexsort((targets, seeds, -values)).tolist()
    of_seed, of_target = Counter(), Counter()
    kept, seed_drops, target_drops = [], 0, 0
    for position in order:
        seed, target = int(seeds[position]), int(targets[position])
        if of_seed[seed] >= per_seed:
            seed_drops += 1
        elif of_target[target] >= per_target:
            target_drops += 1
        else:
            of_seed[seed] += 1
            of_target[target] += 1
            kept.append(position)
    kept.sort(key=lambda position: (seeds[position], targets[position], position))
    return kept, seed_drops, target_drops


@pytest.mark.parametrize("ordered_by_value", [True, False])
@pytest.mark.parametrize("caps", [(1, 1), (3, 2), (2, 300), (100, 100)])
def test_it_keeps_what_the_plain_walk_keeps(caps: tuple[int, int], ordered_by_value: bool) -> None:
    generator = np.random.default_rng(0)
    for count, documents in [(0, 1), (1, 1), (40, 3), (2000, 150), (3000, 10_000_000)]:
        # A hub, and only a few distinct values, so that most of the order is decided by ties.
        seeds = generator.integers(documents, size=count)
        targets = np.where(
            generator.random(count) < 0.3, documents // 2, generator.integers(documents, size=count)
        )
        values = generator.choice(np.float32([0.0, -0.0, 0.25, -0.5, 0.7, 1e-40, 3.0]), size=count)
        values = values if ordered_by_value else None
        kept, *drops = core.cap_pairs(seeds, targets, *caps, values)
        assert (kept.tolist(), *drops) == plain_walk(seeds, targets, *caps, values)


@pytest.mark.parametrize(
    ("seeds", "targets", "caps", "values", "message"),
    [
        ([0, 1], [0], (1, 1), None, "equal length"),
        ([0], [0], (1, 1), [0.5, 0.5], "equal length"),
        ([0], [-1], (1, 1), None, "document -1 is negative"),
        ([0], [0], (0, 1), None, "caps must be at least 1"),
        ([0], [0], (1, 1), [np.nan], "not a number"),
    ],
)
def test_what_is_impossible_is_refused(
    seeds: list, targets: list, caps: tuple, values: list | None, message: str
) -> None:
    values = None if values is None else np.array(values, np.float32)
    with pytest.raises(ValueError, match=message):
        core.cap_pairs(np.array(seeds), np.array(targets), *caps, values)
