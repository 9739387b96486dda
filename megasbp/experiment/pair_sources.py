"""Pairs that no search finds: from a ready list, a link graph, at random, or within one document.

Each source names pairs of units for the tables that it can fill, and says why it cannot fill the others.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import megasbp._C as core
from megasbp.addressing import derive_key
from megasbp.corpus.splits import SPLITS
from megasbp.errors import InputError
from megasbp.experiment.context import Context
from megasbp.pairing.continuation import continuation_pairs
from megasbp.pairing.document_index import DocumentIndex, split_numbers
from megasbp.pairing.edges import NUMBERS, read_edges
from megasbp.pairing.random_pairs import random_pairs

# Pair table -> (split of the seed d1, split of the target d2). Only "train" is tuned on; "validation" chooses
# the learning rate and the steps; the other two measure what a pair is worth on text no model was trained on.
PAIR_TABLES = {
    "train": ("unique", "unique"),
    "validation": ("unique", "validation"),
    "new_target": ("unique", "test"),
    "new_seed_and_target": ("test", "test"),
}
VALUE_TABLES = ("new_target", "new_seed_and_target")
# Within one document both are of one split.
_CONTINUATION_TABLES = {
    "train": ("unique", "unique"),
    "validation": ("validation", "validation"),
    "new_seed_and_target": ("test", "test"),
}
_NAMED = 3


@dataclass
class Listed:
    """What a source names.

    Attributes:
        pairs: table -> (seeds, targets), int64 units of the table's splits, in the order they are offered to
            the caps.
        splits: table -> (split of the seed, split of the target).
        without: table -> why the source has no pairs for it.
        reading: rows of the source's file by what became of them; empty without a file.
    """

    pairs: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    splits: dict[str, tuple[str, str]] = field(default_factory=dict)
    without: dict[str, str] = field(default_factory=dict)
    reading: dict[str, int] = field(default_factory=dict)


def listed_pairs(context: Context) -> Listed:
    """The pairs of the recipe's source.

    Raises:
        InputError: the source's file is unreadable or names too many unknown documents, ids of the corpus are
            not unique, or there are fewer random pairs than asked for.
    """
    match context.recipe.pairing.source:
        case "random":
            return _random(context)
        case "continuation":
            return _continuation(context)
        case _:
            return _from_file(context)


def _random(context: Context) -> Listed:
    recipe = context.recipe
    assert recipe.pairing.random_pairs is not None
    wanted = {
        "train": recipe.pairing.random_pairs,
        "validation": recipe.synthesizer.maximum_validation_pairs,
        "new_target": recipe.evaluation.maximum_value_pairs,
        "new_seed_and_target": recipe.evaluation.maximum_value_pairs,
    }
    listed = Listed(splits=dict(PAIR_TABLES))
    for table, (seed_split, target_split) in PAIR_TABLES.items():
        seeds, targets = (len(context.corpus.open_units(split)) for split in (seed_split, target_split))
        same = seed_split == target_split
        # The limits of the held-out tables are maxima, the number for tuning is an order.
        count = wanted[table] if table == "train" else min(wanted[table], seeds * (targets - same))
        key = derive_key(context.seed, "random source", table)
        listed.pairs[table] = random_pairs(seeds, targets, count, key, same=same)
    return listed


def _continuation(context: Context) -> Listed:
    listed = Listed(splits=dict(_CONTINUATION_TABLES))
    for table, (split, _) in _CONTINUATION_TABLES.items():
        listed.pairs[table] = continuation_pairs(context.corpus.unit_parents(split))
    listed.without["new_target"] = "a continuation's seed and target are parts of one document"
    return listed


def _from_file(context: Context) -> Listed:
    pairing = context.recipe.pairing
    assert pairing.path is not None and pairing.source in {"list", "links"}
    reader = _Reader(context)
    for batch in read_edges(pairing.path, "list" if pairing.source == "list" else "links"):
        reader.add(batch)
    listed = reader.finish()
    for table, (seed_split, target_split) in PAIR_TABLES.items():
        if table not in listed.pairs:
            listed.without[table] = (
                f"{pairing.path.name} has no pair of a document of the {seed_split} split with one of the "
                f"{target_split} split"
            )
    if pairing.source == "links":
        # A graph is written hub by hub: offered in that order, the first hubs would fill the caps.
        for table, (seeds, targets) in listed.pairs.items():
            key = derive_key(context.seed, "order of links", table)
            order = core.permute(max(1, len(seeds)), key, np.arange(len(seeds)))
            listed.pairs[table] = seeds[order], targets[order]
    return listed


class _Reader:
    """Sorts the rows of a file of pairs into the tables, keeping only what a table can use."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._pairing = context.recipe.pairing
        self._documents: _Documents | None = None
        self._units = len(context.corpus.open_units("unique"))
        self._parts: dict[str, list[np.ndarray]] = {table: [] for table in PAIR_TABLES}
        self._counts = {"rows": 0, "unknown": 0, "outside_splits": 0}
        self._unknown: list[str] = []

    def add(self, batch: pa.RecordBatch) -> None:
        if tuple(batch.schema.names) == NUMBERS:
            ends = [np.asarray(column) for column in batch.columns]
            unknown = np.logical_or.reduce([(end < 0) | (end >= self._units) for end in ends])
        else:
            if self._documents is None:
                self._documents = _Documents(self._context)
            ends = [self._documents.index.find(column) for column in batch.columns]
            unknown = (ends[0] < 0) | (ends[1] < 0)
        self._counts["rows"] += len(unknown)
        self._counts["unknown"] += int(np.count_nonzero(unknown))
        for row in np.flatnonzero(unknown)[: _NAMED - len(self._unknown)]:
            self._unknown.append(" with ".join(repr(column[row].as_py()) for column in batch.columns))
        seeds, targets = (end[~unknown] for end in ends)
        if tuple(batch.schema.names) == NUMBERS:
            self._parts["train"].append(np.stack([seeds, targets]))
        else:
            self._sort(seeds, targets)

    def _sort(self, seeds: np.ndarray, targets: np.ndarray) -> None:
        documents = self._documents
        assert documents is not None
        used = np.zeros(len(seeds), dtype=bool)
        directions = [(seeds, targets)] + ([(targets, seeds)] if self._pairing.both_ways else [])
        for table, (seed_split, target_split) in PAIR_TABLES.items():
            codes = SPLITS.index(seed_split), SPLITS.index(target_split)
            for first, second in directions:
                chosen = (documents.codes[first] == codes[0]) & (documents.codes[second] == codes[1])
                used |= chosen
                numbers = documents.numbers[first[chosen]], documents.numbers[second[chosen]]
                self._parts[table].append(np.stack(numbers))
        self._counts["outside_splits"] += int(np.count_nonzero(~used))

    def finish(self) -> Listed:
        rows, unknown = self._counts["rows"], self._counts["unknown"]
        path = self._pairing.path
        if not rows:
            raise InputError(f"{path}: holds no pair; correct pairing.path")
        if unknown > self._pairing.maximum_unknown_share * rows:
            raise InputError(
                f"{path}: {unknown} of {rows} rows name a document that the corpus has not, such as "
                f"{', '.join(self._unknown)}; make the file from this corpus, correct corpus.id_field, or "
                f"raise pairing.maximum_unknown_share ({self._pairing.maximum_unknown_share})"
            )
        listed = Listed(splits=dict(PAIR_TABLES), reading=dict(self._counts))
        for table, parts in self._parts.items():
            seeds, targets = np.concatenate(parts, axis=1) if parts else np.empty((2, 0), np.int64)
            if len(seeds) and self._documents is not None:
                seeds = self._one_unit(seeds, PAIR_TABLES[table][0], table, "seed")
                targets = self._one_unit(targets, PAIR_TABLES[table][1], table, "target")
            if len(seeds):
                listed.pairs[table] = seeds, targets
        return listed

    def _one_unit(self, documents: np.ndarray, split: str, table: str, role: str) -> np.ndarray:
        """A unit of each document: itself, or one of its passages, drawn evenly."""
        parents = self._context.corpus.unit_parents(split)
        first = np.searchsorted(parents, documents, side="left")
        count = np.searchsorted(parents, documents, side="right") - first
        key = derive_key(self._context.seed, "passage of a listed document", table, role)
        draws = np.random.Generator(np.random.Philox(key=key)).random(len(documents))
        return first + (draws * count).astype(np.int64)


class _Documents:
    """Every document of the corpus: found by id, with its split's code and its number there."""

    def __init__(self, context: Context) -> None:
        path = context.corpus.split.folder / "documents.parquet"

        def read_ids() -> Iterator[pa.Array]:
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(columns=["id"]):
                    yield batch["id"].cast(pa.large_string())

        self.index = DocumentIndex(read_ids)
        self.codes = pq.read_table(path, columns=["split"])["split"].to_numpy()
        self.numbers = split_numbers(self.codes)
