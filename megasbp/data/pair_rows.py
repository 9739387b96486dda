"""Pairs in full rows of one window each, for ordinary training: what belongs together stands together.

A row holds pairs `bos d1 sep d2 eos`, packed best-fit, and is filled up with the beginnings of other
documents, so that no token is padding. The rows of the dataset lie end to end: row r is its tokens
[r S, (r + 1) S), which an aligned `WindowSource` reads; the loss is on every token.

No token of a d2 is lost: d1 is cut to the room that d2 leaves, though never below an eighth of a row, and
what does not fit of d2 goes on in a row without d1, as a window goes on with a document that another cut.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import megasbp._C as core
from megasbp.addressing import derive_key
from megasbp.data.documents import document_numbers
from megasbp.data.indexed_dataset import IndexedDataset, IndexedDatasetWriter
from megasbp.data.packing import pack
from megasbp.errors import InputError

# bos and sep of a pair.
_MARKS = 2
# Of a row, what d1 may fill however long d2 is.
_LEAST_SEED = 1 / 8


@dataclass(frozen=True)
class PairRows:
    """What a dataset of rows holds.

    Attributes:
        rows: of S tokens.
        pairs: in them.
        seed_tokens: of `bos d1`, over all pairs.
        target_tokens: of `sep d2 eos`, over all pairs; a d2 has as many as it has as a stored document.
        filler_tokens: of the other documents.
        cut_seeds: pairs whose d1 was cut.
        parted_targets: pairs whose d2 goes on in a row without d1.
    """

    rows: int
    pairs: int
    seed_tokens: int
    target_tokens: int
    filler_tokens: int
    cut_seeds: int
    parted_targets: int


def write_pair_rows(
    prefix: Path,
    seed_dataset: IndexedDataset,
    target_dataset: IndexedDataset,
    seed_documents: np.ndarray,
    target_documents: np.ndarray,
    filler_dataset: IndexedDataset,
    *,
    sequence_length: int,
    separator_token: int,
    seed: int,
    maximum_rows: int | None = None,
    metadata: Mapping[str, Any],
) -> PairRows:
    """Writes the rows of all pairs, in an order of their own; of too many `maximum_rows`, drawn evenly.

    Memory: 60 bytes a pair.

    Args:
        seed_dataset, target_dataset: where d1 and d2 are; documents stored as `bos document eos`.
        seed_documents, target_documents: int64 [pairs].
        filler_dataset: its documents fill rows up, each from its beginning, none twice before all were used.
        sequence_length: S.
        seed: of the order of rows and of fillers.
        metadata: of the dataset.

    Raises:
        InputError: no pairs, documents that the datasets do not have, or rows of fewer than 8 tokens.
    """
    if sequence_length * _LEAST_SEED < 1:
        raise InputError(f"sequence_length is {sequence_length}; rows of pairs need at least 8 tokens")
    seeds = document_numbers(seed_dataset, seed_documents)
    targets = document_numbers(target_dataset, target_documents)
    if not len(seeds):
        raise InputError(
            "no pairs to put in rows; widen the pairing's similarity band or give more documents"
        )
    items = _part(seed_dataset.lengths[seeds], target_dataset.lengths[targets], sequence_length)
    bounds, packed = pack(items.lengths, sequence_length)
    rows = len(bounds) - 1 if maximum_rows is None else min(len(bounds) - 1, maximum_rows)
    order = core.epoch_order(np.arange(rows), len(bounds) - 1, derive_key(seed, "pair rows"))
    fillers = _fillers(filler_dataset, derive_key(seed, "fillers of pair rows"))
    counts = dict.fromkeys(
        ("pairs", "seed_tokens", "target_tokens", "filler_tokens", "cut_seeds", "parted_targets"), 0
    )
    with IndexedDatasetWriter(prefix, target_dataset.dtype, metadata=metadata) as writer:
        for row in order.tolist():
            room = sequence_length
            for item in packed[bounds[row] : bounds[row + 1]].tolist():
                pair, kept, start, length = items.at(item)
                # From the token after bos on: d2 and eos.
                target = target_dataset.document(targets[pair])[1:]
                if start:
                    tokens = target[start : start + length]
                    counts["target_tokens"] += length
                else:
                    first = seed_dataset.document(seeds[pair])[: 1 + kept]
                    tokens = np.concatenate([first, [separator_token], target[: length - kept - _MARKS]])
                    counts["pairs"] += 1
                    counts["seed_tokens"] += len(first)
                    counts["target_tokens"] += length - len(first)
                    counts["cut_seeds"] += kept < seed_dataset.lengths[seeds[pair]] - 2
                    counts["parted_targets"] += length - kept - _MARKS < len(target)
                writer.add_document(tokens)
                room -= length
            while room:
                filler = next(fillers)[:room]
                writer.add_document(filler)
                room -= len(filler)
                counts["filler_tokens"] += len(filler)
    return PairRows(rows, **{name: int(value) for name, value in counts.items()})


@dataclass(frozen=True)
class _Items:
    """What is put into rows: a pair with its d2 or the beginning of it, or what follows of that d2.

    Attributes, int64 [items] each:
        pairs: number of the pair.
        kept: tokens of d1 in the row of its pair.
        starts: of the part, in `d2 eos`; 0 is the beginning.
        lengths: tokens in the row.
    """

    pairs: np.ndarray
    kept: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray

    def at(self, item: int) -> tuple[int, int, int, int]:
        """Pair, kept, start and length of an item."""
        return (
            int(self.pairs[item]),
            int(self.kept[item]),
            int(self.starts[item]),
            int(self.lengths[item]),
        )


def _part(seed_lengths: np.ndarray, target_lengths: np.ndarray, sequence_length: int) -> _Items:
    """Cuts pairs of stored documents of these lengths into items that fit a row, pair by pair."""
    seeds = seed_lengths.astype(np.int64) - 2
    targets = target_lengths.astype(np.int64) - 1
    least = int(sequence_length * _LEAST_SEED)
    kept = np.minimum(seeds, np.maximum(sequence_length - _MARKS - targets, least))
    first = np.minimum(targets, sequence_length - _MARKS - kept)
    rest = targets - first
    later = -(-rest // sequence_length)
    pairs = np.repeat(np.arange(len(seeds)), 1 + later)
    # 0 for the pair itself, then 1, 2, ... for the later parts of its d2.
    number = np.arange(len(pairs)) - np.repeat(np.cumsum(1 + later) - 1 - later, 1 + later)
    beginning = number == 0
    starts = np.where(beginning, 0, first[pairs] + (number - 1) * sequence_length)
    lengths = np.where(
        beginning,
        _MARKS + kept[pairs] + first[pairs],
        np.minimum(sequence_length, targets[pairs] - starts),
    )
    return _Items(pairs, kept[pairs], starts, lengths)


def _fillers(dataset: IndexedDataset, key: int) -> Iterator[np.ndarray]:
    """Stored documents, each once before any twice."""
    number = 0
    while True:
        yield dataset.document(int(core.epoch_order(np.array([number]), len(dataset), key)[0]))
        number += 1
