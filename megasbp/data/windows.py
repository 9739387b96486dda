"""Pretraining samples: windows over the circular token stream of a dataset."""

import numpy as np

import megasbp._C as core
from megasbp.addressing import derive_key
from megasbp.data.batch import Batch
from megasbp.data.indexed_dataset import IndexedDataset
from megasbp.data.native import native_errors
from megasbp.data.sources import sample_indices
from megasbp.errors import InputError
from megasbp.storage import hash_object


class WindowSource:
    """Contiguous windows of S tokens, in another order and cut at another phase each epoch.

    An epoch has N = tokens // S windows; window w of epoch e starts at token (phase(e) + w * S) mod tokens,
    and a permutation keyed by (seed, name, e) gives their order, so an epoch reads no token twice and leaves
    fewer than S out. Document borders inside a window, and the end of the stream, begin a new segment; a
    document cut by the window's start begins at position 0 there. The window's last token has no label.

    Args:
        dataset: at least S tokens.
        sequence_length: S.
        seed: the run's seed, any integer of up to 64 bits.
        name: the source's name in the mixture; sources of one run have different names.
        aligned: every phase is 0: window w is tokens [w S, (w + 1) S) in every epoch.

    Raises:
        InputError: the sequence length is below 2, or the dataset has fewer tokens.
    """

    def __init__(
        self, dataset: IndexedDataset, sequence_length: int, seed: int, name: str, *, aligned: bool = False
    ) -> None:
        if sequence_length < 2:
            raise InputError(f"sequence_length is {sequence_length}, must be at least 2")
        if dataset.tokens < sequence_length:
            raise InputError(
                f"{dataset.prefix}: {dataset.tokens} tokens, fewer than one window of {sequence_length}; "
                "give more documents or a smaller sequence_length"
            )
        self.dataset = dataset
        self.sequence_length = sequence_length
        self.samples_per_epoch = dataset.tokens // sequence_length
        self.fingerprint = hash_object(
            {
                "source": "windows",
                "dataset": dataset.fingerprint,
                "sequence_length": sequence_length,
                "seed": seed,
                "name": name,
                **({"aligned": True} if aligned else {}),
            }
        )
        self._aligned = aligned
        self._order_key = derive_key(seed, "window order", name)
        self._phase_key = derive_key(seed, "window phase", name)

    def starts(self, indices: np.ndarray) -> np.ndarray:
        """First token of each sample in the stream, int64 [B]."""
        indices = sample_indices(indices)
        if self._aligned:
            return core.epoch_order(indices, self.samples_per_epoch, self._order_key) * self.sequence_length
        return core.window_starts(
            indices,
            self.dataset.tokens,
            self.sequence_length,
            self._order_key,
            self._phase_key,
        )

    def batch(self, indices: np.ndarray, *, threads: int = 0) -> Batch:
        """Samples `indices`, int64 [B]. The number of threads (0: by size) does not change the result."""
        with native_errors(str(self.dataset.prefix)):
            return Batch.from_array(
                core.window_batch(self.dataset.native, self.starts(indices), self.sequence_length, threads)
            )
