"""Which documents are trained on and which are held out: whole near-duplicate clusters, in a keyed order."""

import numpy as np

from megasbp.addressing import derive_key
from megasbp.errors import InputError

# A document's code is its split's place here. The oracle's corpus is "unique" and "oracle" together.
SPLITS = ("unused", "unique", "oracle", "validation", "test")
_CLUSTERS_AT_ONCE = 1 << 20


def assign_splits(
    clusters: np.ndarray, seed: int, unique: int, oracle: int, validation: int, test: int
) -> np.ndarray:
    """Assigns each document to a split; near-duplicates never meet across splits.

    Clusters are visited in the order of a key of (seed, label); each goes to the first of test, validation,
    unique, oracle that still has room for all of it. So the counts are exact, the held-out documents depend
    on neither `unique` nor `oracle`, and the unique ones do not depend on `oracle`.

    Memory: 40 bytes a document.

    Args:
        clusters: int64 [n], each document's cluster label, in 0..n - 1.
        seed: of the order.
        unique: documents that every arm trains on.
        oracle: documents that the oracle trains on, `unique` included.
        validation, test: held-out documents.

    Returns:
        int8 [n], indices into `SPLITS`.

    Raises:
        InputError: a count is negative, oracle is below unique, or the corpus has too few documents.
    """
    wanted = {"test": test, "validation": validation, "unique": unique, "oracle": oracle - unique}
    if min(wanted.values()) < 0:
        raise InputError(
            f"splits of unique {unique}, oracle {oracle}, validation {validation}, test {test} documents: "
            "none may be negative, and the oracle's hold the unique ones"
        )
    needed = oracle + validation + test
    if needed > len(clusters):
        raise InputError(
            f"the corpus has {len(clusters)} usable documents; oracle {oracle} + validation {validation} + "
            f"test {test} need {needed}: lower corpus.oracle or add text"
        )
    sizes = np.bincount(clusters, minlength=len(clusters))
    waiting = visiting_order(np.flatnonzero(sizes), seed)
    found = len(waiting)
    codes = np.zeros(len(clusters), np.int8)
    short = {}
    for name, room in wanted.items():
        taken, left = fitting_clusters(sizes, waiting, room)
        codes[waiting[taken]] = SPLITS.index(name)
        if left:
            short[name] = left
        waiting = waiting[~taken]
    if short:
        missing = ", ".join(f"{name} by {count}" for name, count in short.items())
        raise InputError(
            f"the corpus has {len(clusters)} usable documents in {found} near-duplicate clusters, the "
            f"largest of {sizes.max()}, which no split may part: short are {missing}; lower the counts or "
            "raise corpus.duplicate_threshold"
        )
    return codes[clusters]


def visiting_order(labels: np.ndarray, seed: int) -> np.ndarray:
    """The clusters as they are visited."""
    keys = np.fromiter((derive_key(seed, "split", int(label)) for label in labels), np.uint64, len(labels))
    return labels[np.argsort(keys, kind="stable")]


def fitting_clusters(sizes: np.ndarray, clusters: np.ndarray, room: int) -> tuple[np.ndarray, int]:
    """Which of the clusters, visited in this order, find room for all their documents.

    Room only shrinks: what does not fit once is passed over for good, and what comes before it fits together.
    So each round of a block ends at a smaller cluster than the last one's.

    Args:
        sizes: int64 [labels].
        clusters: int64 [n], labels.

    Returns:
        bool [n], and the room that is left.
    """
    taken = np.zeros(len(clusters), bool)
    for start in range(0, len(clusters), _CLUSTERS_AT_ONCE):
        block = sizes[clusters[start : start + _CLUSTERS_AT_ONCE]]
        waiting = np.arange(len(block))
        while room and len(waiting):
            waiting = waiting[block[waiting] <= room]
            fitting = int(np.searchsorted(np.cumsum(block[waiting]), room, side="right"))
            taken[start + waiting[:fitting]] = True
            room -= int(block[waiting[:fitting]].sum())
            waiting = waiting[fitting:]
        if not room:
            break
    return taken, room
