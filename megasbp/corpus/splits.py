"""Which documents are trained on and which are held out: whole near-duplicate clusters, in a keyed order."""

import numpy as np

from megasbp.addressing import derive_key
from megasbp.errors import InputError

# A document's code is its split's place here. The oracle's corpus is "unique" and "oracle" together.
SPLITS = ("unused", "unique", "oracle", "validation", "test")


def assign_splits(
    clusters: np.ndarray, seed: int, unique: int, oracle: int, validation: int, test: int
) -> np.ndarray:
    """Assigns each document to a split; near-duplicates never meet across splits.

    Clusters are visited in the order of a key of (seed, label); each goes to the first of test, validation,
    unique, oracle that still has room for all of it. So the counts are exact, the held-out documents depend
    on neither `unique` nor `oracle`, and the unique ones do not depend on `oracle`.

    Args:
        clusters: int64 [n], each document's cluster label.
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
    labels, members = np.unique(clusters, return_inverse=True)
    sizes = np.bincount(members, minlength=len(labels))
    order = sorted(range(len(labels)), key=lambda i: derive_key(seed, "split", int(labels[i])))
    room = dict(wanted)
    codes = np.zeros(len(labels), np.int8)
    for cluster in order:
        name = next((name for name in room if sizes[cluster] <= room[name]), None)
        if name is not None:
            codes[cluster] = SPLITS.index(name)
            room[name] -= int(sizes[cluster])
    short = {name: count for name, count in room.items() if count}
    if short:
        missing = ", ".join(f"{name} by {count}" for name, count in short.items())
        raise InputError(
            f"the corpus has {len(clusters)} usable documents in {len(labels)} near-duplicate clusters, the "
            f"largest of {sizes.max()}, which no split may part: short are {missing}; lower the counts or "
            "raise corpus.duplicate_threshold"
        )
    return codes[members]
