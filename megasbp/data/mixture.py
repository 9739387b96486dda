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

    A mixture may have phases, one after the other, each an exact mixture of shares of its own.

    Args:
        parts: sources of one sequence length, each with its number of samples, >= 0, or with that of each
            phase; the sum of a phase is in 1..2**62.

    Raises:
        InputError: no parts, a bad number of samples, other numbers of phases, or different sequence lengths.
    """

    def __init__(self, parts: Sequence[tuple[SampleSource, int | Sequence[int]]]) -> None:
        lengths = sorted({source.sequence_length for source, _ in parts})
        if len(lengths) != 1:
            raise InputError(f"a mixture of sequence lengths {lengths}; give its sources one length")
        self._sources = [source for source, _ in parts]
        by_part = [(samples,) if isinstance(samples, int) else tuple(samples) for _, samples in parts]
        if len({len(samples) for samples in by_part}) != 1:
            raise InputError(f"a mixture whose parts have {by_part} samples; give each as many phases")
        with native_errors("mixture"):
            self._phases = [core.Mixture(list(samples)) for samples in zip(*by_part, strict=True)]
        # int64 [phases + 1, parts]: what each part has given before a phase; and all together.
        self._given = np.vstack([np.zeros(len(parts), np.int64), np.cumsum(by_part, axis=1).T])
        self._ends = self._given.sum(1)
        self.sequence_length = lengths[0]
        self.samples_per_epoch = int(self._ends[-1])
        totals = [samples[0] if len(samples) == 1 else list(samples) for samples in by_part]
        self.fingerprint = hash_object(
            {
                "source": "mixture",
                "parts": [[one.fingerprint, total] for one, total in zip(self._sources, totals, strict=True)],
            }
        )

    def locate(self, index: int) -> tuple[int, int]:
        """The part that gives sample `index`, and the sample's index in that part."""
        parts, local = self._locate(np.array([index]))
        return int(parts[0]), int(local[0])

    def _locate(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        indices = sample_indices(indices)
        if len(self._phases) == 1:
            return self._phases[0].locate(indices)
        epochs, places = np.divmod(indices, self.samples_per_epoch)
        parts, local = np.empty_like(indices), np.empty_like(indices)
        for number, phase in enumerate(self._phases):
            inside = (places >= self._ends[number]) & (places < self._ends[number + 1])
            found, within = phase.locate(places[inside] - self._ends[number])
            parts[inside], local[inside] = found, within + self._given[number][found]
        return parts, local + epochs * self._given[-1][parts]

    def batch(self, indices: np.ndarray) -> Batch:
        """Samples `indices`, int64 [B]."""
        parts, local = self._locate(indices)
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
