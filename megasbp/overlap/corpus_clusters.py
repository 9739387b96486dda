"""Near-duplicate clusters of a corpus of any size: four stages over shards, bounded memory, the same bytes
whatever the number of shards, parts and workers.

    signatures   a task a dataset shard     keys and slots of each document
    candidates   a task a band and part     documents that share a key, thinned out by their slots
    verified     a task a document range    candidates whose exact similarity reaches the threshold
    clusters     one task                   labels by union-find, 8 bytes a document

A pair is found with the probability that `near_duplicate_clusters` promises, less 0.1% at the threshold, and
like there no pair is joined without an exact comparison. Only in groups of more than 32 different signatures
under one key are fewer pairs looked at, see `write_candidates`.
"""

from collections.abc import Callable, Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import Any, Protocol

import numpy as np

import megasbp._C as core
from megasbp.data.array_file import ArrayFile
from megasbp.data.native import native_errors
from megasbp.errors import InputError
from megasbp.overlap.candidates import blocks_of_pairs, write_candidates, write_verified
from megasbp.overlap.dataset_shards import DatasetShards
from megasbp.overlap.signatures import bands_at, write_signatures
from megasbp.storage import publish_manifest, publishing_folder

CLUSTERS = "clusters.npy"
_BYTES_PER_KEY = 16
_LABELS_AT_ONCE = 1 << 20


class RunTasks(Protocol):
    """Runs a stage function once a task; what an engine must do for `cluster_corpus`."""

    def __call__(
        self,
        work: Callable[..., dict[str, Any]],
        tasks: Sequence[Any],
        folder: Path,
        settings: Mapping[str, Any],
    ) -> Sequence[Path]:
        """Publishes work(task, folder of the task, **settings) of each task below `folder`.

        Returns:
            The tasks' folders, in the order of the tasks.
        """


def run_here(
    work: Callable[..., dict[str, Any]], tasks: Sequence[Any], folder: Path, settings: Mapping[str, Any]
) -> list[Path]:
    """One task after another in this process; folders 00000, 00001, ... with manifests."""
    outputs = [Path(folder) / f"{number:05d}" for number in range(len(tasks))]
    for task, output in zip(tasks, outputs, strict=True):
        with publishing_folder(output) as partial:
            facts = work(task, partial, **settings)
            publish_manifest(partial, work.__name__, inputs={}, settings={}, facts=facts)
    return outputs


def cluster_corpus(
    datasets: Sequence[Path],
    folder: Path,
    *,
    width: int,
    threshold: float,
    seed: int,
    memory: int = 4 << 30,
    threads: int = 1,
    run: RunTasks = run_here,
) -> dict[str, Any]:
    """Clusters the documents of dataset shards; clusters.npy of `folder` holds int64 [documents].

    Documents are numbered on from shard to shard; a label is the cluster's smallest document. Documents
    joined by chains of pairs with Jaccard similarity >= `threshold` share a label.

    Args:
        datasets: the shards' paths without suffix.
        folder: where the stages put their folders: signatures/, candidates/, verified/, clusters/.
        width: shingle width in tokens.
        threshold: in (0, 1].
        seed: of the hash functions.
        memory: bytes that a task of the candidates may take, beside its candidates. The last task takes 8
            bytes a document whatever this is.
        threads: of a task of the signatures.
        run: runs the tasks of a stage.

    Returns:
        {"documents", "clusters", "near_duplicates"}: the last counts the documents but one of each cluster.

    Raises:
        InputError: a dataset or a setting.
    """
    documents = len(DatasetShards(datasets))
    parts = parts_for(documents, memory)
    signatures = run(
        write_signatures,
        datasets,
        Path(folder) / "signatures",
        {"width": width, "threshold": threshold, "seed": seed, "threads": threads},
    )
    candidates = run(
        write_candidates,
        [(band, part) for band in range(bands_at(threshold)) for part in range(parts)],
        Path(folder) / "candidates",
        {"signatures": signatures, "parts": parts},
    )
    verified = run(
        write_verified,
        range(parts),
        Path(folder) / "verified",
        {
            "parts": parts,
            "datasets": datasets,
            "candidates": candidates,
            "width": width,
            "threshold": threshold,
        },
    )
    with publishing_folder(Path(folder) / "clusters") as partial:
        facts = write_clusters(documents, partial, pairs=verified)
        settings = {"width": width, "threshold": threshold, "seed": seed}
        publish_manifest(partial, "near-duplicate clusters", inputs={}, settings=settings, facts=facts)
    return facts


def parts_for(documents: int, memory: int) -> int:
    """Parts of a band's key space such that one takes at most `memory` bytes.

    Raises:
        InputError: memory below 1 MiB.
    """
    if memory < 1 << 20:
        raise InputError(f"memory {memory}: must be at least {1 << 20} bytes (4 GiB is usual)")
    return max(1, ceil(documents * _BYTES_PER_KEY * 1.02 / memory))


def write_clusters(documents: int, folder: Path, *, pairs: Sequence[Path]) -> dict[str, Any]:
    """Stage function: joins verified pairs; clusters.npy holds each document's smallest companion.

    The bytes depend on the components only: not on the pairs' order, nor on how they lie in folders.
    Memory: 8 bytes a document.

    Args:
        documents: their number.
        pairs: folders of `write_verified`.

    Returns:
        {"documents", "clusters", "near_duplicates"}.

    Raises:
        InputError: a damaged pair file, or one with a document that does not exist.
    """
    union = core.UnionFind(documents)
    for pair_folder in pairs:
        for block in blocks_of_pairs(pair_folder):
            with native_errors(str(pair_folder)):
                union.join(block)
    labels = union.take_labels()
    clusters = 0
    with ArrayFile(Path(folder) / CLUSTERS) as file:
        for start in range(0, documents, _LABELS_AT_ONCE):
            block = labels[start : start + _LABELS_AT_ONCE]
            clusters += int((block == np.arange(start, start + len(block))).sum())
            file.append(block)
    return {"documents": documents, "clusters": clusters, "near_duplicates": documents - clusters}
