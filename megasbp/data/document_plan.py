"""Which documents share a row of whole-document packing; in memory, or published as memory-mapped files."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from megasbp.data.array_file import ArrayFile, read_array
from megasbp.data.indexed_dataset import IndexedDataset
from megasbp.data.packing import GROUP_ITEMS, groups, pack_group
from megasbp.data.sources import hash_array
from megasbp.errors import InputError
from megasbp.storage import Manifest, publish_manifest, publishing_folder, read_manifest

_STAGE = "document plan"
_ARRAYS = ("row_bounds", "documents", "offsets")


@dataclass(frozen=True)
class DocumentPlan:
    """Rows of pieces of documents; a document no longer than a row is one piece.

    Attributes:
        row_bounds: int64 [rows + 1]; row r holds pieces row_bounds[r] to row_bounds[r + 1] - 1.
        documents: int64 [pieces], the document of each piece.
        offsets: int64 [pieces], the piece's first token in its document.
    """

    row_bounds: np.ndarray
    documents: np.ndarray
    offsets: np.ndarray


@dataclass(frozen=True)
class _Group:
    row_counts: np.ndarray
    documents: np.ndarray
    offsets: np.ndarray


def plan_documents(
    dataset: IndexedDataset, sequence_length: int, documents: np.ndarray | None
) -> DocumentPlan:
    """The plan in memory: 24 bytes a piece at most.

    Args:
        documents: int64 [n], documents of the dataset; None takes all.

    Raises:
        InputError: none of them has a token.
    """
    packed = list(_plan_groups(dataset, sequence_length, documents))
    if not packed:
        raise _nothing(dataset)
    counts = np.concatenate([group.row_counts for group in packed])
    return DocumentPlan(
        row_bounds=np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts)]),
        documents=np.concatenate([group.documents for group in packed]),
        offsets=np.concatenate([group.offsets for group in packed]),
    )


def build_document_plan(
    folder: Path, dataset: IndexedDataset, sequence_length: int, documents: np.ndarray | None
) -> DocumentPlan:
    """The same plan, published in `folder` with a manifest and memory-mapped; made only if it is not there.

    Memory use does not grow with the number of documents.

    Raises:
        InputError: as `plan_documents`; or what is in the folder is not such a plan.
        OSError: a failed write, with errno and the file's name; an earlier plan stays as it was.
    """
    folder = Path(folder)
    inputs = {
        "dataset": dataset.fingerprint,
        "documents": "all" if documents is None else hash_array(documents),
    }
    settings = {"sequence_length": sequence_length, "group": GROUP_ITEMS}
    published = read_manifest(folder)
    if published is None or published.key != Manifest(_STAGE, inputs, settings).key:
        with publishing_folder(folder) as partial:
            facts = _write_plan(partial, _plan_groups(dataset, sequence_length, documents))
            if not facts["pieces"]:
                raise _nothing(dataset)
            publish_manifest(partial, _STAGE, inputs, settings, facts)
    return DocumentPlan(**{name: read_array(folder / f"{name}.npy") for name in _ARRAYS})


def _nothing(dataset: IndexedDataset) -> InputError:
    return InputError(f"{dataset.prefix}: none of the chosen documents has a token; choose others")


def _plan_groups(
    dataset: IndexedDataset, sequence_length: int, documents: np.ndarray | None
) -> Iterator[_Group]:
    for chosen, offsets, lengths in _regrouped(_pieces(dataset, sequence_length, documents)):
        row_counts, order = pack_group(lengths, sequence_length, 0)
        yield _Group(row_counts, chosen[order], offsets[order])


def _pieces(
    dataset: IndexedDataset, sequence_length: int, documents: np.ndarray | None
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Documents, offsets and lengths of pieces, int64 [n] each, for some documents at a time."""
    for group in groups(len(dataset) if documents is None else len(documents)):
        chosen = np.arange(group.start, group.stop) if documents is None else documents[group]
        lengths = dataset.lengths[chosen].astype(np.int64)
        # A piece begins with the last token of the one before, which had no label there.
        counts = np.where(lengths > 0, np.maximum(1, -(-(lengths - 1) // (sequence_length - 1))), 0)
        first = np.repeat(np.cumsum(counts) - counts, counts)
        offsets = (np.arange(len(first)) - first) * (sequence_length - 1)
        remaining = np.repeat(lengths, counts) - offsets
        yield np.repeat(chosen, counts), offsets, np.minimum(remaining, sequence_length)


def _regrouped(
    blocks: Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]],
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """The same pieces in blocks of GROUP_ITEMS, the last one shorter."""
    held = np.zeros((3, 0), dtype=np.int64)
    for block in blocks:
        held = np.concatenate([held, np.stack(block)], axis=1)
        while held.shape[1] >= GROUP_ITEMS:
            yield held[0, :GROUP_ITEMS], held[1, :GROUP_ITEMS], held[2, :GROUP_ITEMS]
            held = held[:, GROUP_ITEMS:]
    if held.shape[1]:
        yield held[0], held[1], held[2]


def _write_plan(folder: Path, packed: Iterator[_Group]) -> dict[str, int]:
    rows = end = 0
    with (
        ArrayFile(folder / "row_bounds.npy") as bounds,
        ArrayFile(folder / "documents.npy") as documents,
        ArrayFile(folder / "offsets.npy") as offsets,
    ):
        bounds.append(np.zeros(1, dtype=np.int64))
        for group in packed:
            bounds.append(end + np.cumsum(group.row_counts))
            documents.append(group.documents)
            offsets.append(group.offsets)
            rows += len(group.row_counts)
            end += len(group.documents)
    return {"rows": rows, "pieces": end}
