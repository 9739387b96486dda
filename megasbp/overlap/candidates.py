"""Candidate pairs by band, and the exact comparison that decides about them.

Both are stage functions: they fill an existing folder and depend on their arguments and input files only.
Pairs are stored as a .npy file, int64 [2 * pairs]: smaller document, larger document, and so on, sorted.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from math import ceil, floor, sqrt
from pathlib import Path
from typing import Any

import numpy as np

import megasbp._C as core
from megasbp.data.array_file import ArrayFile
from megasbp.errors import InputError
from megasbp.overlap.clusters import SIGNATURE_SLOTS
from megasbp.overlap.dataset_shards import DatasetShards
from megasbp.overlap.shingles import jaccard_pairs
from megasbp.overlap.signatures import open_all

PAIRS = "pairs.npy"
# Of the number of slots that agree, around what the threshold makes expected.
_DEVIATIONS = 3
_CHANCE = 1 / 256
_COMPARED_AT_ONCE = 4096
_READ_AT_ONCE = 1 << 20


def write_candidates(shard: int, folder: Path, *, signatures: Sequence[Path], parts: int) -> dict[str, Any]:
    """Stage function: candidate pairs of one band and one part of its key space.

    Documents with equal keys form a group. A pair of a group is a candidate when the number of its slots that
    agree is not three standard deviations below what the threshold makes expected, which a pair right at the
    threshold is with a chance of about 0.1%. Two exceptions keep the pairs few and their number linear in the
    group: documents of equal signature are paired in band 0 only, each with the smallest and with the one
    before it; and pairs are left out that are joined by a chain of pairs three deviations above. In groups of
    more than 32 different signatures each document is compared with the smallest and with the 8 before it.

    Memory: 16 bytes per document / `parts`, 32 per candidate, and one group.

    Args:
        shard: band * `parts` + part; part p takes the keys in the p-th of `parts` equal ranges.
        signatures: folders of `write_signatures`, in the order that numbers the documents.
        parts: as many as make the shard fit into memory.

    Returns:
        {"groups", "largest_group", "candidates"}.

    Raises:
        InputError: damaged signatures, or shards made with different settings.
    """
    band, part = divmod(shard, parts)
    signed = open_all(signatures)
    bounds = np.cumsum([0, *(len(each.slots) for each in signed)]).tolist()
    groups = core.BandGroups(part, parts, bounds[-1])
    for first, each in zip(bounds, signed, strict=False):
        groups.add(each.keys[band], first)
    fewest, certain = agreeing_slots(signed[0].settings["threshold"])
    pairs = groups.candidates([each.slots for each in signed], bounds, band == 0, fewest, certain)
    with ArrayFile(Path(folder) / PAIRS) as file:
        file.append(pairs.reshape(-1))
    return {"groups": groups.groups, "largest_group": groups.largest, "candidates": len(pairs)}


def agreeing_slots(threshold: float) -> tuple[int, int]:
    """Slots that agree three standard deviations below and above a pair right at the threshold.

    Returns:
        (fewest, certain): a pair with less than `fewest` is not compared; one with `certain`, which may be
        more than there are, counts as found when further pairs are proposed.
    """
    agreement = threshold + (1 - threshold) * _CHANCE
    expected = SIGNATURE_SLOTS * agreement
    spread = _DEVIATIONS * sqrt(SIGNATURE_SLOTS * agreement * (1 - agreement))
    return max(floor(expected - spread), 1), ceil(expected + spread)


def write_verified(
    shard: int,
    folder: Path,
    *,
    parts: int,
    datasets: Sequence[Path],
    candidates: Sequence[Path],
    width: int,
    threshold: float,
) -> dict[str, Any]:
    """Stage function: of the candidates of all bands, those whose Jaccard similarity reaches the threshold.

    Compares the documents' shingles exactly. A pair that earlier pairs of this shard have joined already is
    not compared; so the pairs kept depend on `parts`, the clusters they make do not.

    Memory: 50 bytes per candidate of the shard, and 8 bytes per token of up to 8,192 documents.

    Args:
        shard: takes the candidates whose smaller document lies in the shard-th of `parts` equal ranges.
        datasets: in the order that numbers the documents.
        candidates: folders of `write_candidates`, all bands and parts, in any order.

    Returns:
        {"candidates": different ones, "compared": exactly, "pairs": those kept}.

    Raises:
        InputError: a damaged dataset or pair file.
    """
    documents = DatasetShards(datasets)
    start, stop = len(documents) * shard // parts, len(documents) * (shard + 1) // parts
    pairs = _distinct([_in_range(load_pairs(candidate), start, stop) for candidate in candidates])
    members, places = np.unique(pairs, return_inverse=True)
    places = places.reshape(-1, 2)
    joined = core.UnionFind(len(members))
    compared = kept = 0
    with ArrayFile(Path(folder) / PAIRS) as file:
        for block in range(0, len(pairs), _COMPARED_AT_ONCE):
            here = slice(block, block + _COMPARED_AT_ONCE)
            open_pairs = ~joined.joined(places[here])
            chosen = pairs[here][open_pairs]
            similar = jaccard_pairs(documents, chosen[:, 0], documents, chosen[:, 1], width) >= threshold
            joined.join(places[here][open_pairs][similar])
            file.append(chosen[similar].reshape(-1))
            compared += len(chosen)
            kept += int(similar.sum())
    return {"candidates": len(pairs), "compared": compared, "pairs": kept}


def load_pairs(folder: Path) -> np.ndarray:
    """The pairs that a stage function wrote, int64 [pairs, 2], memory-mapped.

    Raises:
        InputError: the file is missing or damaged; the message names it.
    """
    path = Path(folder) / PAIRS
    try:
        flat = np.load(path, mmap_mode="r", allow_pickle=False)
    except (FileNotFoundError, ValueError, EOFError) as error:
        raise InputError(f"{path}: missing or damaged ({error}); make this folder again") from None
    if flat.dtype != np.int64 or flat.ndim != 1 or len(flat) % 2:
        raise InputError(f"{path}: {flat.dtype} {list(flat.shape)} holds no pairs; make this folder again")
    return flat.reshape(-1, 2)


def blocks_of_pairs(folder: Path) -> Iterator[np.ndarray]:
    """`load_pairs` in pieces of at most a million."""
    pairs = load_pairs(folder)
    for start in range(0, len(pairs), _READ_AT_ONCE):
        yield np.ascontiguousarray(pairs[start : start + _READ_AT_ONCE])


def _in_range(pairs: np.ndarray, start: int, stop: int) -> np.ndarray:
    """The pairs whose smaller document lies in [start, stop); reads only these and O(log pairs) others."""
    first = bisect_left(pairs, start, key=lambda pair: int(pair[0]))
    last = bisect_left(pairs, stop, lo=first, key=lambda pair: int(pair[0]))
    return np.asarray(pairs[first:last])


def _distinct(groups: Sequence[np.ndarray]) -> np.ndarray:
    """Pairs of all groups, sorted, each once: int64 [n, 2]."""
    pairs = np.concatenate([np.empty((0, 2), np.int64), *groups])
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    repeated = np.zeros(len(pairs), bool)
    repeated[1:] = (pairs[1:] == pairs[:-1]).all(1)
    return pairs[~repeated]
