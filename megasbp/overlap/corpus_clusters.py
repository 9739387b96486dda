"""Near-duplicate clusters of a corpus of any size: bounded memory, the same bytes whatever the number of
datasets, parts and workers. Three steps in shards, and a last one:

    signatures   a shard a dataset          keys and slots of each document
    candidates   a shard a band and part    documents that share a key, thinned out by their slots
    verified     a shard a document range   candidates whose exact similarity reaches the threshold
    clusters     the calling process        labels by union-find, 8 bytes a document

A pair is found with the probability that `near_duplicate_clusters` promises, less 0.1% at the threshold, and
like there no pair is joined without an exact comparison. Only in groups of more than 32 different signatures
under one key are fewer pairs looked at, see `write_candidates`.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np

import megasbp._C as core
from megasbp.data.array_file import ArrayFile, read_array
from megasbp.data.native import native_errors
from megasbp.errors import InputError
from megasbp.overlap.candidates import blocks_of_pairs, write_candidates, write_verified
from megasbp.overlap.clusters import SIGNATURE_SLOTS
from megasbp.overlap.dataset_shards import DatasetShards
from megasbp.overlap.shingles import checked_width
from megasbp.overlap.signatures import bands_at, write_signatures
from megasbp.shards.config import INLINE, ShardsConfig
from megasbp.shards.engine import run_shards
from megasbp.shards.job import Work
from megasbp.shards.progress import print_line
from megasbp.shards.publication import shard_folder
from megasbp.storage import (
    Manifest,
    hash_object,
    publish_manifest,
    publishing_folder,
    read_manifest,
    remove_partials,
)

CLUSTERS = "clusters.npy"
_SIGNATURES, _CANDIDATES, _VERIFIED, _LABELS = "signatures", "candidates", "verified", "clusters"
_STAGE = "near-duplicate clusters"
_BYTES_PER_KEY = 16
_LABELS_AT_ONCE = 1 << 20


def cluster_corpus(
    datasets: Sequence[Path],
    folder: Path,
    *,
    width: int,
    threshold: float,
    seed: int,
    memory: int = 4 << 30,
    shards: ShardsConfig = INLINE,
    announce: Callable[[str], None] | None = print_line,
) -> dict[str, Any]:
    """Clusters the documents of datasets; clusters/clusters.npy of `folder` holds int64 [documents].

    Documents are numbered on from dataset to dataset; a label is the cluster's smallest document. Documents
    joined by chains of pairs with Jaccard similarity >= `threshold` share a label.

    Call it again after a stop: it goes on where it was, and finds the clusters when they are there. The other
    steps' folders, at threshold 0.7 some 330 bytes a document, are not needed any more then: see
    `remove_steps`.

    Args:
        datasets: paths without suffix.
        folder: where the steps put their folders: signatures/, candidates/, verified/, clusters/.
        width: shingle width in tokens.
        threshold: in (0, 1].
        seed: of the hash functions.
        memory: bytes that a shard of the candidates may take, beside its candidates. The last step takes 8
            bytes a document whatever this is.
        shards: where the shards are worked on, and the threads of the signatures.
        announce: receives a line now and then; None for silence.

    Returns:
        {"documents", "clusters", "near_duplicates"}: the last counts the documents but one of each cluster.

    Raises:
        InputError: a dataset or a setting; `folder` was made with others or is damaged; the disk is full.
        ShardError: a shard failed, or its worker died, again and again.
    """
    folder = Path(folder)
    documents = DatasetShards(datasets)
    parts, bands = parts_for(len(documents), memory), bands_at(threshold)
    settings = {"width": checked_width(width), "threshold": threshold, "seed": seed}
    inputs = {"datasets": documents.fingerprint}
    found = _found_clusters(folder / _LABELS, Manifest(_STAGE, inputs, settings))
    if found is not None:
        return found.facts

    def run(
        name: str, work: Work, count: int, inputs: Mapping[str, str], values: Mapping[str, Any], **paths: Any
    ) -> tuple[str, list[Path]]:
        """One sharded step; returns the hash of what it wrote, and its shards' folders."""
        manifests = run_shards(
            work,
            range(count),
            folder / name,
            settings=values,
            inputs=inputs,
            paths=paths,
            config=shards,
            announce=announce,
        )
        digest = hash_object([manifest.digest for manifest in manifests])
        return digest, [shard_folder(folder / name, number) for number in range(count)]

    signed, signatures = run(
        _SIGNATURES, write_signatures, len(datasets), inputs, settings, datasets=datasets
    )
    proposed, candidates = run(
        _CANDIDATES,
        write_candidates,
        bands * parts,
        {"signatures": signed},
        {"parts": parts},
        signatures=signatures,
    )
    _, verified = run(
        _VERIFIED,
        write_verified,
        parts,
        {**inputs, "candidates": proposed},
        {"parts": parts, "width": width, "threshold": threshold},
        datasets=datasets,
        candidates=candidates,
    )
    remove_partials(folder)
    with publishing_folder(folder / _LABELS) as partial:
        facts = write_clusters(len(documents), partial, pairs=verified)
        publish_manifest(partial, _STAGE, inputs, settings, facts)
    return facts


def _found_clusters(folder: Path, wanted: Manifest) -> Manifest | None:
    """The manifest of clusters that an earlier call has published, if it has."""
    manifest = read_manifest(folder)
    if manifest is None and folder.exists():
        raise InputError(f"{folder}: does not hold what its manifest says; remove that folder")
    if manifest is not None and manifest.key != wanted.key:
        raise InputError(
            f"{folder}: made with {manifest.difference(wanted)}; use another folder, or remove "
            f"{folder.parent} to start anew"
        )
    return manifest


def load_clusters(folder: Path) -> np.ndarray:
    """The labels that `cluster_corpus` put into a folder, int64 [documents], memory-mapped."""
    return read_array(Path(folder) / _LABELS / CLUSTERS)


def largest_clusters(labels: np.ndarray, count: int) -> list[tuple[int, int]]:
    """Label and size of the largest clusters of at least two documents; of equal ones the smallest labels.

    Memory: 16 bytes a document.

    Args:
        labels: int64 [documents], from `load_clusters`.
        count: of clusters, at most.
    """
    sizes = np.bincount(labels, minlength=len(labels))
    least = 2 if count >= len(sizes) else max(2, int(np.partition(sizes, -count)[-count]))
    candidates = np.flatnonzero(sizes >= least)
    order = np.lexsort((candidates, -sizes[candidates]))[:count]
    return [(int(label), int(sizes[label])) for label in candidates[order]]


def disk_needed(documents: int, threshold: float) -> int:
    """Bytes that the steps write, without candidates: signatures and labels."""
    return documents * (8 * bands_at(threshold) + SIGNATURE_SLOTS + 8)


def remove_steps(folder: Path) -> None:
    """Removes what `cluster_corpus` needed on its way to the clusters; these must be there."""
    assert (Path(folder) / _LABELS).is_dir()
    for name in (_SIGNATURES, _CANDIDATES, _VERIFIED):
        shutil.rmtree(Path(folder) / name, ignore_errors=True)


def parts_for(documents: int, memory: int) -> int:
    """Parts of a band's key space such that one takes at most `memory` bytes.

    Raises:
        InputError: memory below 1 MiB.
    """
    if memory < 1 << 20:
        raise InputError(f"memory {memory}: must be at least {1 << 20} bytes (4 GiB is usual)")
    return max(1, ceil(documents * _BYTES_PER_KEY * 1.02 / memory))


def write_clusters(documents: int, folder: Path, *, pairs: Sequence[Path]) -> dict[str, Any]:
    """Joins verified pairs; clusters.npy of `folder` holds each document's smallest companion.

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
