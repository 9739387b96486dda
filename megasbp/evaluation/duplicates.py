"""Near-duplicates among the first N documents of a set, for sets that memory does not hold.

The share grows with N: whoever compares two sets compares them at one N.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from megasbp.data.indexed_dataset import IndexedDataset, IndexedDatasetWriter
from megasbp.errors import InputError
from megasbp.overlap.corpus_clusters import cluster_corpus
from megasbp.shards.config import INLINE, ShardsConfig
from megasbp.storage import publish_json, read_json

# Of the hash functions, as in `evaluation.quality`.
_SEED = 0


def sizes_to_measure(synthetic: Mapping[str, int], real: int, sizes: Sequence[int]) -> list[int]:
    """The sizes at which sets are measured, ascending: those wanted that a synthetic set reaches, and the
    largest one that all sets reach, so that there is always one to compare them at.

    Args:
        synthetic: set -> how many documents it has.
        real: how many there are of real text.
        sizes: wanted, at least one.

    Raises:
        InputError: a set has no documents.
    """
    empty = [name for name, count in synthetic.items() if not count]
    if empty:
        raise InputError(f"duplicates: {empty[0]} has no documents; raise the budget or relax the filters")
    common = min(*synthetic.values(), real, max(sizes))
    return sorted({common, *(size for size in sizes if size <= max(synthetic.values()))})


def near_duplicates_at(
    sets: Mapping[str, tuple[IndexedDataset, Callable[[int], np.ndarray]]],
    sizes: Sequence[int],
    folder: Path,
    *,
    width: int,
    threshold: float,
    shards: ShardsConfig = INLINE,
    announce: Callable[[str], None] | None = None,
) -> dict[str, dict[str, float]]:
    """The share of near-duplicates among the first N documents of each set, for each N that the set reaches.

    A document counts when its cluster has a document before it: 1 - clusters / N. Each N is clustered alone,
    since documents after the N-th must not join those before it. Memory and disk are those of
    `megasbp.overlap.corpus_clusters.cluster_corpus`, and a copy of the N documents on disk.

    Args:
        sets: name -> a dataset and, for N, the numbers of its first N documents in the set's order.
        sizes: every N.
        folder: where the steps and a file for each finished N lie; a call that was stopped goes on there.
        width: shingle width in tokens.
        threshold: Jaccard similarity of shingles from which on documents are near-duplicates.
        shards, announce: as in `cluster_corpus`.

    Returns:
        set -> {str(N): share in [0, 1)}.
    """
    found: dict[str, dict[str, float]] = {}
    work = folder / "work"
    for name, (dataset, first) in sets.items():
        found[name] = {}
        for size in (size for size in sizes if size <= len(dataset)):
            known = folder / f"{name}-{size}.json"
            if not known.exists():
                place = work / f"{name}-{size}"
                facts = _cluster(dataset, first(size), place, width, threshold, shards, announce)
                publish_json(known, facts)
                shutil.rmtree(place)
            facts = read_json(known)
            found[name][str(size)] = facts["near_duplicates"] / facts["documents"]
    # A call that was stopped may have left steps of a size that was finished.
    shutil.rmtree(work, ignore_errors=True)
    return found


def _cluster(
    dataset: IndexedDataset,
    documents: np.ndarray,
    folder: Path,
    width: int,
    threshold: float,
    shards: ShardsConfig,
    announce: Callable[[str], None] | None,
) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    copy = folder / "documents"
    # The .json is published last.
    if not copy.with_suffix(".json").exists():
        with IndexedDatasetWriter(copy, dataset.dtype, metadata=dict(dataset.metadata)) as writer:
            writer.copy_documents(dataset, documents)
    return cluster_corpus(
        [copy],
        folder / "clusters",
        width=width,
        threshold=threshold,
        seed=_SEED,
        shards=shards,
        announce=announce,
    )
