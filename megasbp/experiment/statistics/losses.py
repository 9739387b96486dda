"""Held-out losses of an arm, by seed and document, and what two arms differ by."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from megasbp.errors import InputError


@dataclass(frozen=True)
class HeldOutLosses:
    """The losses of one arm on the test documents.

    Attributes:
        nats: seed -> float64 [documents], summed loss of each document.
        units: int64 [documents], divisor of the loss: bytes of each document (tokens, for pair losses).
        clusters: int64 [documents], label of the near-duplicate cluster of each document.

    Raises:
        ValueError: the arrays differ in length, a document has no units, or there is no seed.
        InputError: a loss is not finite, or the documents form fewer than two clusters.
    """

    nats: Mapping[int, np.ndarray]
    units: np.ndarray
    clusters: np.ndarray

    def __post_init__(self) -> None:
        shape = np.shape(self.units)
        if len(shape) != 1 or np.shape(self.clusters) != shape:
            raise ValueError(
                f"units {shape} and clusters {np.shape(self.clusters)} must be one-dimensional and alike"
            )
        if not self.nats:
            raise ValueError("nats is empty; give the losses of at least one seed")
        if shape[0] and np.min(self.units) <= 0:
            raise ValueError(f"units has the value {np.min(self.units)}; every document needs at least 1")
        for seed, nats in self.nats.items():
            if np.shape(nats) != shape:
                raise ValueError(f"seed {seed}: nats {np.shape(nats)} must have the shape of units, {shape}")
            bad = int(np.count_nonzero(~np.isfinite(nats)))
            if bad:
                raise InputError(
                    f"seed {seed}: the loss of {bad} of {shape[0]} test documents is not finite; "
                    "the run diverged: lower its learning rate"
                )
        count = np.unique(self.clusters).size
        if count < 2:
            raise InputError(
                f"the test split has {count} cluster(s) of documents, an interval needs at least 2; "
                "enlarge the test split"
            )


def per_seed_losses(arm: HeldOutLosses) -> dict[int, float]:
    """Nats per unit of each seed: sum of nats / sum of units."""
    total = int(np.sum(arm.units))
    return {seed: float(np.sum(nats, dtype=np.float64)) / total for seed, nats in sorted(arm.nats.items())}


def common_seeds(*arms: HeldOutLosses) -> tuple[int, ...]:
    """The seeds that all arms have.

    Raises:
        ValueError: the arms have other documents or no seed in common.
    """
    first = arms[0]
    for other in arms[1:]:
        if not (np.array_equal(first.units, other.units) and np.array_equal(first.clusters, other.clusters)):
            raise ValueError(
                "the arms were not measured on the same test documents; evaluate them again on one split"
            )
    seeds = tuple(sorted(set.intersection(*(set(arm.nats) for arm in arms))))
    if not seeds:
        raise ValueError(f"no seed is common to all arms: {[sorted(arm.nats) for arm in arms]}")
    return seeds


def gains(treatment: HeldOutLosses, reference: HeldOutLosses, seeds: Sequence[int]) -> np.ndarray:
    """float64 [S, documents]: nats that the treatment saves on each document."""
    return np.stack([reference.nats[seed] - treatment.nats[seed] for seed in seeds])
