"""Random pairs: uniform, without a pair that occurs twice, and no index array over the corpus."""

import numpy as np

import megasbp._C as core
from megasbp.errors import InputError

# Pairs are numbered in 63 bits.
_MOST = 2**63 - 1


def random_pairs(
    seeds: int, targets: int, count: int, key: int, *, same: bool, start: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs [start, start + count) of a keyed order of all pairs: a pure function of (key, index).

    All pairs of a seed and a target are numbered, without those of a document with itself, and a keyed
    bijection of their numbers (`core.permute`) is read from `start`. So every prefix is a uniform draw
    without replacement, in memory that does not depend on the corpus.

    Args:
        seeds, targets: documents in the seeds' and in the targets' dataset.
        count: pairs wanted.
        key: addresses the order, in [0, 2**64).
        same: both datasets are the same one: a document is not paired with itself.
        start: first pair of the order.

    Returns:
        seed and target numbers, int64 [count].

    Raises:
        InputError: there are not so many pairs.
    """
    partners = targets - 1 if same else targets
    possible = seeds * max(partners, 0)
    if start + count > min(possible, _MOST):
        raise InputError(
            f"pairing: {start + count} random pairs asked for, {seeds} seeds and {targets} targets have "
            f"{possible}; lower pairing.random_pairs or give more documents"
        )
    if not count:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    numbers = core.permute(possible, key, np.arange(start, start + count))
    seed, partner = np.divmod(numbers, partners)
    # Without itself: the partners from its own number on move up by one.
    return seed, partner + (same & (partner >= seed))
