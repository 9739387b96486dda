"""What the trainer asks of its data: sample i, for any i, without state."""

import hashlib
from typing import Protocol

import numpy as np

from megasbp.data.batch import Batch
from megasbp.errors import InputError

__all__ = ["Batch", "SampleSource", "hash_array", "sample_indices"]


class SampleSource(Protocol):
    """An endless sequence of samples as a pure function of the index.

    Sample i lies in epoch i // samples_per_epoch. Equal fingerprints mean equal samples.
    """

    @property
    def sequence_length(self) -> int:
        """Tokens of a sample, padding included."""
        ...

    @property
    def samples_per_epoch(self) -> int:
        """Samples after which the source repeats itself, possibly in another order."""
        ...

    @property
    def fingerprint(self) -> str:
        """Hash of everything the samples depend on."""
        ...

    def batch(self, indices: np.ndarray, /) -> Batch:
        """Samples `indices`, int64 [B], each >= 0, in this order. May be called from several threads."""
        ...


def sample_indices(indices: np.ndarray) -> np.ndarray:
    """Indices as the contiguous int64 array that the C++ core reads.

    Raises:
        InputError: not one-dimensional integers, or negative.
    """
    indices = np.asarray(indices)
    if indices.ndim != 1 or (indices.size and indices.dtype.kind not in "iu"):
        raise InputError(f"sample indices are {indices.dtype} {list(indices.shape)}, must be integers [B]")
    if indices.size and indices.min() < 0:
        raise InputError(f"sample index {indices.min()} is negative; samples begin at 0")
    return np.ascontiguousarray(indices, dtype=np.int64)


def hash_array(values: np.ndarray) -> str:
    """SHA-256 of an array's values, hexadecimal; a memory-mapped array is read through, not loaded."""
    return hashlib.sha256(np.ascontiguousarray(values).data).hexdigest()
