"""Samples of whole documents, packed: evaluation, and training that never cuts a document."""

from pathlib import Path

import numpy as np

import megasbp._C as core
from megasbp.addressing import derive_key
from megasbp.data.batch import Batch
from megasbp.data.document_plan import build_document_plan, plan_documents
from megasbp.data.indexed_dataset import IndexedDataset
from megasbp.data.native import native_errors
from megasbp.data.packing import GROUP_ITEMS
from megasbp.data.sources import hash_array, sample_indices
from megasbp.errors import InputError
from megasbp.storage import hash_object


class PackedDocuments:
    """Each document once an epoch, packed best-fit in rows of S tokens.

    A document longer than S is cut into pieces that overlap by one token: the last token of a piece, which
    has no label there, is the first of the next. So each token but a document's first is predicted exactly
    once, and the sum over a document's pieces is the loss of the whole document (with a context that restarts
    at each piece). Empty documents have no piece.

    Args:
        dataset: its metadata name the eos token, which fills the rows.
        sequence_length: S.
        documents: int [n], the documents to take, in this order; all by default.
        seed: None makes row r sample r in every epoch (evaluation); else a permutation of the rows keyed by
            (seed, name, epoch).
        name: the source's name; sources of one run have different names.
        plan_folder: where the plan is published and memory-mapped; None keeps it in memory.

    Raises:
        InputError: S below 2, a document that the dataset does not have, or no tokens at all.
    """

    def __init__(
        self,
        dataset: IndexedDataset,
        sequence_length: int,
        documents: np.ndarray | None = None,
        seed: int | None = None,
        name: str = "",
        *,
        plan_folder: Path | None = None,
    ) -> None:
        if sequence_length < 2:
            raise InputError(f"sequence_length is {sequence_length}, must be at least 2")
        chosen = None if documents is None else document_numbers(dataset, documents)
        if plan_folder is None:
            self.plan = plan_documents(dataset, sequence_length, chosen)
        else:
            self.plan = build_document_plan(plan_folder, dataset, sequence_length, chosen)
        self.dataset = dataset
        self.sequence_length = sequence_length
        self.samples_per_epoch = len(self.plan.row_bounds) - 1
        self._eos = dataset.special_token("eos")
        self._order_key = None if seed is None else derive_key(seed, "document order", name)
        self.fingerprint = hash_object(
            {
                "source": "packed documents",
                "dataset": dataset.fingerprint,
                "sequence_length": sequence_length,
                "documents": None if chosen is None else hash_array(chosen),
                "group": GROUP_ITEMS,
                **({} if seed is None else {"seed": seed, "name": name}),
            }
        )

    def row_items(self, row: int) -> np.ndarray:
        """int64 [segments], the document of each segment of a row of the plan."""
        return self.plan.documents[self.plan.row_bounds[row] : self.plan.row_bounds[row + 1]]

    def rows(self, indices: np.ndarray) -> np.ndarray:
        """The plan's row of each sample, int64 [B]."""
        indices = sample_indices(indices)
        if self._order_key is None:
            return indices % self.samples_per_epoch
        return core.epoch_order(indices, self.samples_per_epoch, self._order_key)

    def batch(self, indices: np.ndarray, *, threads: int = 0) -> Batch:
        """Samples `indices`, int64 [B]. The number of threads (0: by size) does not change the result."""
        with native_errors(str(self.dataset.prefix)):
            return Batch.from_array(
                core.piece_batch(
                    self.dataset.native,
                    self.plan.row_bounds,
                    self.plan.documents,
                    self.plan.offsets,
                    self.rows(indices),
                    self.sequence_length,
                    self._eos,
                    threads,
                )
            )


def document_numbers(dataset: IndexedDataset, documents: np.ndarray) -> np.ndarray:
    """Document numbers as a contiguous int64 array.

    Raises:
        InputError: not one-dimensional integers, or not documents of this dataset.
    """
    documents = np.asarray(documents)
    if documents.ndim != 1 or (documents.size and documents.dtype.kind not in "iu"):
        raise InputError(f"documents are {documents.dtype} {list(documents.shape)}, must be integers [n]")
    outside = (documents < 0) | (documents >= len(dataset))
    if outside.any():
        raise InputError(
            f"{dataset.prefix}: document {documents[outside.argmax()]} is not in 0..{len(dataset) - 1}; "
            "the list belongs to another dataset"
        )
    return np.ascontiguousarray(documents, dtype=np.int64)
