"""Evaluation samples: whole documents, packed."""

import numpy as np

import megasbp._C as core
from megasbp.data.batch import Batch
from megasbp.data.indexed_dataset import IndexedDataset
from megasbp.data.native import native_errors
from megasbp.data.packing import GROUP_ITEMS, pack
from megasbp.data.sources import hash_array, sample_indices
from megasbp.errors import InputError
from megasbp.storage import hash_object


class PackedDocuments:
    """Each document once, packed best-fit in rows of S tokens; row r is sample r in every epoch.

    A document longer than S is cut into pieces that overlap by one token: the last token of a piece, which
    has no label there, is the first of the next. So each token but a document's first is predicted exactly
    once, and the sum over a document's pieces is the loss of the whole document (with a context that restarts
    at each piece). Empty documents have no piece.

    Args:
        dataset: its metadata name the eos token, which fills the rows.
        sequence_length: S.
        documents: int [n], the documents to take, in this order; all by default.

    Raises:
        InputError: S below 2, a document that the dataset does not have, or no tokens at all.
    """

    def __init__(
        self, dataset: IndexedDataset, sequence_length: int, documents: np.ndarray | None = None
    ) -> None:
        if sequence_length < 2:
            raise InputError(f"sequence_length is {sequence_length}, must be at least 2")
        chosen = document_numbers(dataset, np.arange(len(dataset)) if documents is None else documents)
        lengths = dataset.lengths[chosen].astype(np.int64)
        pieces = np.where(lengths > 0, np.maximum(1, -(-(lengths - 1) // (sequence_length - 1))), 0)
        self._documents = np.repeat(chosen, pieces)
        first = np.repeat(np.cumsum(pieces) - pieces, pieces)
        self._offsets = (np.arange(len(self._documents)) - first) * (sequence_length - 1)
        remaining = np.repeat(lengths, pieces) - self._offsets
        if not len(self._documents):
            raise InputError(
                f"{dataset.prefix}: none of the {len(chosen)} chosen documents has a token; choose others"
            )
        self._bounds, order = pack(np.minimum(remaining, sequence_length), sequence_length)
        self._documents, self._offsets = self._documents[order], self._offsets[order]
        self.dataset = dataset
        self.sequence_length = sequence_length
        self.samples_per_epoch = len(self._bounds) - 1
        self._eos = dataset.special_token("eos")
        self.fingerprint = hash_object(
            {
                "source": "packed documents",
                "dataset": dataset.fingerprint,
                "sequence_length": sequence_length,
                "documents": None if documents is None else hash_array(chosen),
                "group": GROUP_ITEMS,
            }
        )

    def row_items(self, row: int) -> np.ndarray:
        """int64 [segments], the document of each segment of a row."""
        return self._documents[self._bounds[row] : self._bounds[row + 1]]

    def batch(self, indices: np.ndarray, *, threads: int = 0) -> Batch:
        """Samples `indices`, int64 [B]. The number of threads (0: by size) does not change the result."""
        with native_errors(str(self.dataset.prefix)):
            return Batch.from_arrays(
                core.piece_batch(
                    self.dataset.native,
                    self._bounds,
                    self._documents,
                    self._offsets,
                    sample_indices(indices) % self.samples_per_epoch,
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
