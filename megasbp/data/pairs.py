"""Samples of synthesizer tuning: pairs `bos d1 sep d2 eos`, packed."""

from pathlib import Path

import numpy as np

import megasbp._C as core
from megasbp.addressing import derive_key
from megasbp.data.batch import Batch
from megasbp.data.indexed_dataset import IndexedDataset
from megasbp.data.native import native_errors
from megasbp.data.packing import GROUP_ITEMS
from megasbp.data.pair_plan import build_pair_plan, plan_pairs
from megasbp.data.sources import hash_array, sample_indices
from megasbp.errors import InputError
from megasbp.storage import hash_object


class PairSource:
    """Each pair once an epoch, one segment each, several packed best-fit in a row of `context` tokens.

    The loss is on d2 given d1: the separator predicts d2's first token, d2's last token predicts eos,
    everything else is masked. d1 is cut to context // 2 - 2 tokens; a d2 that does not fit the rest is cut
    and has no eos.

    Args:
        seed_dataset, target_dataset: where d1 and d2 are; documents stored as `bos document eos`, by one
            tokenizer.
        seed_documents, target_documents: int [pairs].
        context: tokens of a row.
        separator_token: id of sep.
        seed: None gives the plan's order in every epoch (evaluation); else a permutation of the rows keyed by
            (seed, name, epoch).
        name: the source's name; sources of one run have different names.
        plan_folder: where the plan is published and memory-mapped; None keeps it in memory.

    Attributes:
        cut_seeds, cut_targets: how many pairs have a cut d1, a cut d2.

    Raises:
        InputError: see `plan_pairs`; different tokenizers or special tokens; metadata without bos and eos.
    """

    def __init__(
        self,
        seed_dataset: IndexedDataset,
        target_dataset: IndexedDataset,
        seed_documents: np.ndarray,
        target_documents: np.ndarray,
        context: int,
        separator_token: int,
        seed: int | None = None,
        name: str = "",
        *,
        plan_folder: Path | None = None,
    ) -> None:
        _require_one_tokenizer(seed_dataset, target_dataset)
        arguments = (seed_dataset, target_dataset, seed_documents, target_documents, context)
        plan = plan_pairs(*arguments) if plan_folder is None else build_pair_plan(plan_folder, *arguments)
        self.seed_dataset = seed_dataset
        self.target_dataset = target_dataset
        self.plan = plan
        self.sequence_length = context
        self.samples_per_epoch = len(plan.row_bounds) - 1
        self.cut_seeds = plan.cut_seeds
        self.cut_targets = plan.cut_targets
        self._bos = target_dataset.special_token("bos")
        self._separator = separator_token
        self._eos = target_dataset.special_token("eos")
        self._order_key = None if seed is None else derive_key(seed, "pair order", name)
        self.fingerprint = hash_object(
            {
                "source": "pairs",
                "seed dataset": seed_dataset.fingerprint,
                "target dataset": target_dataset.fingerprint,
                "seed documents": hash_array(plan.seed_documents),
                "target documents": hash_array(plan.target_documents),
                "context": context,
                "separator": separator_token,
                "seed": seed,
                "name": name,
                "group": GROUP_ITEMS,
            }
        )

    def row_items(self, row: int) -> np.ndarray:
        """int64 [segments], the pair of each segment of a row of the plan."""
        return self.plan.row_pairs[self.plan.row_bounds[row] : self.plan.row_bounds[row + 1]]

    def rows(self, indices: np.ndarray) -> np.ndarray:
        """The plan's row of each sample, int64 [B]."""
        indices = sample_indices(indices)
        if self._order_key is None:
            return indices % self.samples_per_epoch
        return core.epoch_order(indices, self.samples_per_epoch, self._order_key)

    def batch(self, indices: np.ndarray, *, threads: int = 0) -> Batch:
        """Samples `indices`, int64 [B]. The number of threads (0: by size) does not change the result."""
        with native_errors(f"pairs of {self.seed_dataset.prefix} and {self.target_dataset.prefix}"):
            return Batch.from_array(
                core.pair_batch(
                    self.seed_dataset.native,
                    self.target_dataset.native,
                    self.plan.row_bounds,
                    self.plan.row_pairs,
                    self.plan.seed_documents,
                    self.plan.target_documents,
                    self.rows(indices),
                    self.sequence_length,
                    self._bos,
                    self._separator,
                    self._eos,
                    threads,
                )
            )


def _require_one_tokenizer(first: IndexedDataset, second: IndexedDataset) -> None:
    for name in ("tokenizer", "bos", "eos"):
        values = first.metadata.get(name), second.metadata.get(name)
        if values[0] != values[1]:
            raise InputError(
                f"{first.prefix} has {name} {values[0]}, {second.prefix} has {values[1]}; "
                "pair documents of one tokenizer"
            )
