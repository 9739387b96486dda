"""Which pairs share a row of synthesizer tuning; in memory, or published as memory-mapped files."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from megasbp.data.array_file import ArrayFile, read_array
from megasbp.data.documents import document_numbers
from megasbp.data.indexed_dataset import IndexedDataset
from megasbp.data.packing import GROUP_ITEMS, groups, pack_group
from megasbp.data.sources import hash_array
from megasbp.errors import InputError
from megasbp.storage import Manifest, publish_manifest, publishing_folder, read_manifest

_STAGE = "pair plan"
_ARRAYS = ("row_bounds", "row_pairs", "seed_documents", "target_documents")
# bos, sep, eos and the bos of a d1 of one token.
_LEAST_CONTEXT = 6


@dataclass(frozen=True)
class PairPlan:
    """Rows of pairs.

    Attributes:
        row_bounds: int64 [rows + 1]; row r holds pairs row_pairs[row_bounds[r]:row_bounds[r + 1]].
        row_pairs: int64 [pairs], ascending within a row.
        seed_documents: int64 [pairs], d1 of each pair.
        target_documents: int64 [pairs], d2 of each pair.
        cut_seeds: pairs whose d1 was cut.
        cut_targets: pairs whose d2 was cut, and so has no eos.
    """

    row_bounds: np.ndarray
    row_pairs: np.ndarray
    seed_documents: np.ndarray
    target_documents: np.ndarray
    cut_seeds: int
    cut_targets: int


@dataclass(frozen=True)
class _Group:
    row_counts: np.ndarray
    pairs: np.ndarray
    cut_seeds: int
    cut_targets: int


def plan_pairs(
    seed_dataset: IndexedDataset,
    target_dataset: IndexedDataset,
    seed_documents: np.ndarray,
    target_documents: np.ndarray,
    context: int,
) -> PairPlan:
    """The plan in memory: 32 bytes a pair at most.

    Raises:
        InputError: no pairs, documents that the datasets do not have, a document without bos and eos, or a
            context below 6.
    """
    seeds, targets = _checked(seed_dataset, target_dataset, seed_documents, target_documents, context)
    packed = list(_plan_groups(seed_dataset, target_dataset, seeds, targets, context))
    counts = np.concatenate([group.row_counts for group in packed])
    return PairPlan(
        row_bounds=np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts)]),
        row_pairs=np.concatenate([group.pairs for group in packed]),
        seed_documents=seeds,
        target_documents=targets,
        cut_seeds=sum(group.cut_seeds for group in packed),
        cut_targets=sum(group.cut_targets for group in packed),
    )


def build_pair_plan(
    folder: Path,
    seed_dataset: IndexedDataset,
    target_dataset: IndexedDataset,
    seed_documents: np.ndarray,
    target_documents: np.ndarray,
    context: int,
) -> PairPlan:
    """The same plan, published in `folder` with a manifest and memory-mapped; made only if it is not there.

    Memory use does not grow with the number of pairs when the documents are memory-mapped themselves.

    Raises:
        InputError: as `plan_pairs`.
        OSError: a failed write, with errno and the file's name; an earlier plan stays as it was.
    """
    folder = Path(folder)
    seeds, targets = _checked(seed_dataset, target_dataset, seed_documents, target_documents, context)
    inputs = {
        "seed dataset": seed_dataset.fingerprint,
        "target dataset": target_dataset.fingerprint,
        "seed documents": hash_array(seeds),
        "target documents": hash_array(targets),
    }
    settings = {"context": context, "group": GROUP_ITEMS}
    published = read_manifest(folder)
    if published is None or published.key != Manifest(_STAGE, inputs, settings).key:
        with publishing_folder(folder) as partial:
            facts = _write_plan(partial, _plan_groups(seed_dataset, target_dataset, seeds, targets, context))
            _write_array(partial / "seed_documents.npy", seeds)
            _write_array(partial / "target_documents.npy", targets)
            published = publish_manifest(partial, _STAGE, inputs, settings, facts)
    arrays = {name: read_array(folder / f"{name}.npy") for name in _ARRAYS}
    return PairPlan(
        **arrays, cut_seeds=published.facts["cut_seeds"], cut_targets=published.facts["cut_targets"]
    )


def _checked(
    seed_dataset: IndexedDataset,
    target_dataset: IndexedDataset,
    seed_documents: np.ndarray,
    target_documents: np.ndarray,
    context: int,
) -> tuple[np.ndarray, np.ndarray]:
    if context < _LEAST_CONTEXT:
        raise InputError(f"context is {context}, a pair needs at least {_LEAST_CONTEXT}")
    seeds = document_numbers(seed_dataset, seed_documents)
    targets = document_numbers(target_dataset, target_documents)
    if len(seeds) != len(targets):
        raise InputError(f"{len(seeds)} seed and {len(targets)} target documents; a pair has one of each")
    if not len(seeds):
        raise InputError("no pairs; widen the pairing's similarity band or give more documents")
    return seeds, targets


def _plan_groups(
    seed_dataset: IndexedDataset,
    target_dataset: IndexedDataset,
    seeds: np.ndarray,
    targets: np.ndarray,
    context: int,
) -> Iterator[_Group]:
    for group in groups(len(seeds)):
        seed_tokens = _inner_lengths(seed_dataset, seeds[group])
        target_tokens = _inner_lengths(target_dataset, targets[group])
        # The same cuts as fill_pair in csrc/samples.cpp makes.
        kept = np.minimum(seed_tokens, context // 2 - 2)
        room = context - 2 - kept
        whole = target_tokens + 1 <= room
        lengths = 2 + kept + np.where(whole, target_tokens + 1, room)
        row_counts, pairs = pack_group(lengths, context, group.start)
        yield _Group(row_counts, pairs, int((kept < seed_tokens).sum()), int((~whole).sum()))


def _inner_lengths(dataset: IndexedDataset, documents: np.ndarray) -> np.ndarray:
    lengths = dataset.lengths[documents].astype(np.int64) - 2
    if (lengths < 0).any():
        raise InputError(
            f"{dataset.prefix}: document {documents[(lengths < 0).argmax()]} is shorter than bos and eos; "
            "write the dataset again with both around each document"
        )
    return lengths


def _write_plan(folder: Path, packed: Iterator[_Group]) -> dict[str, int]:
    cut_seeds = cut_targets = rows = end = 0
    with ArrayFile(folder / "row_bounds.npy") as bounds, ArrayFile(folder / "row_pairs.npy") as pairs:
        bounds.append(np.zeros(1, dtype=np.int64))
        for group in packed:
            bounds.append(end + np.cumsum(group.row_counts))
            pairs.append(group.pairs)
            rows += len(group.row_counts)
            end += len(group.pairs)
            cut_seeds += group.cut_seeds
            cut_targets += group.cut_targets
    return {"rows": rows, "pairs": end, "cut_seeds": cut_seeds, "cut_targets": cut_targets}


def _write_array(path: Path, values: np.ndarray) -> None:
    with ArrayFile(path) as file:
        for group in groups(len(values)):
            file.append(values[group])
