"""Several sources as one, in exact shares."""

from collections.abc import Sequence

import numpy as np

import megasbp._C as core
from megasbp.data.batch import Batch
from megasbp.data.native import native_errors
from megasbp.data.sources import SampleSource, sample_indices
from megasbp.errors import InputError
from megasbp.storage import hash_object


class MixtureSource:
    """An exact mixture: after the total, each part has given exactly its number of samples.

    At every prefix two parts stay within half a sample of their shares, K parts within ceil(log2 K) / 2: a
    balanced binary tree of two-way splits, entered at any index in O(log K). Each part hands out its own
    samples 0, 1, 2, ... in its own order. Past the total the mixture begins again and the parts go on.

    Args:
        parts: sources of one sequence length, each with its number of samples, >= 0; the sum is in 1..2**62.

    Raises:
        InputError: no parts, a bad number of samples, or different sequence lengths.
    """

    def __init__(self, parts: Sequence[tuple[SampleSource, int]]) -> None:
        lengths = sorted({source.sequence_length for source, _ in parts})
        if len(lengths) != 1:
            raise InputError(f"a mixture of sequence lengths {lengths}; give its sources one length")
        self._sources = [source for source, _ in parts]
        with native_errors("mixture"):
            self._native = core.Mixture([total for _, total in parts])
        self.sequence_length = lengths[0]
        self.samples_per_epoch = int(self._native.total)
        self.fingerprint = hash_object(
            {"source": "mixture", "parts": [[source.fingerprint, total] for source, total in parts]}
        )

    def locate(self, index: int) -> tuple[int, int]:
        """The part that gives sample `index`, and the sample's index in that part."""
        parts, local = self._native.locate(sample_indices(np.array([index])))
        return int(parts[0]), int(local[0])

    def batch(self, indices: np.ndarray) -> Batch:
        """Samples `indices`, int64 [B]."""
        parts, local = self._native.locate(sample_indices(indices))
        present = np.unique(parts)
        if len(present) == 1:
            return self._sources[present[0]].batch(local)
        arrays = np.empty((4, len(parts), self.sequence_length), dtype=np.int32)
        tokens, labels, positions, segments = arrays
        for part in present:
            rows = np.flatnonzero(parts == part)
            batch = self._sources[part].batch(local[rows])
            # Straight into the arrays: several times faster than indexing a tensor.
            tokens[rows] = batch.tokens.numpy()
            labels[rows] = batch.labels.numpy()
            positions[rows] = batch.positions.numpy()
            segments[rows] = batch.segments.numpy()
        return Batch.from_array(arrays)
