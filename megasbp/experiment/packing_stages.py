"""Rows in which what belongs together stands together: neighbours, or synthetic documents and their seeds."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from megasbp.addressing import derive_key
from megasbp.data.indexed_dataset import IndexedDataset
from megasbp.data.pair_rows import write_pair_rows
from megasbp.experiment.budget import synthetic_need
from megasbp.experiment.context import Context, open_dataset
from megasbp.experiment.stages import StageResult
from megasbp.pairing.table import read_pairs


def packed_neighbours(context: Context, pairs: StageResult) -> StageResult:
    """The pairs that the synthesizer is tuned on, each in one row with its seed: the dataset "neighbours".

    No more rows than are drawn; fewer are drawn several times.
    """
    rows = synthetic_need(context.recipe) // context.recipe.training.sequence_length

    def make(folder: Path) -> dict[str, Any]:
        table = read_pairs(pairs.folder / "train.parquet")
        units = context.corpus.open_units("unique")
        documents = table["seed_doc"].to_numpy(), table["target_doc"].to_numpy()
        return _write(context, folder / "neighbours", units, *documents, maximum_rows=rows)

    return _stage(context, "packed-in_context", {"pairs": pairs}, {"rows": rows}, make)


def packed_with_seeds(context: Context, synthesis: StageResult) -> StageResult:
    """Each synthetic document in one row with its seed: the dataset "seeded".

    It takes as many documents as hold the tokens that sbp reads, marks included; a row has as much of a seed
    again, so there are more rows than sbp reads of synthetic text.
    """
    need = synthetic_need(context.recipe)

    def make(folder: Path) -> dict[str, Any]:
        written = open_dataset(synthesis.folder / "synthetic", context.corpus.open_tokenizer())
        rows = pq.read_table(synthesis.folder / "provenance.parquet", columns=["seed_doc", "accepted"])
        seeds = rows.filter(rows["accepted"])["seed_doc"].to_numpy()
        # The documents whose beginning lies below the need.
        count = int(np.searchsorted(np.cumsum(written.lengths) - written.lengths, need))
        return _write(context, folder / "seeded", written, seeds[:count], np.arange(count))

    return _stage(context, "packed-seed_packing", {"synthesis": synthesis}, {"need": need}, make)


def _stage(
    context: Context,
    name: str,
    inputs: Mapping[str, StageResult],
    settings: Mapping[str, Any],
    make: Callable[[Path], dict[str, Any]],
) -> StageResult:
    corpus = context.corpus
    return context.workspace.stage(
        context.name(name),
        inputs={**inputs, "datasets": corpus.datasets, "units": corpus.units},
        settings={
            **settings,
            "sequence_length": context.recipe.training.sequence_length,
            "seed": context.seed,
        },
        make=make,
    )


def _write(
    context: Context,
    prefix: Path,
    targets: IndexedDataset,
    seed_documents: np.ndarray,
    target_documents: np.ndarray,
    maximum_rows: int | None = None,
) -> dict[str, Any]:
    corpus, length = context.corpus, context.recipe.training.sequence_length
    unique = corpus.open("unique")
    rows = write_pair_rows(
        prefix,
        corpus.open_units("unique"),
        targets,
        seed_documents,
        target_documents,
        unique,
        sequence_length=length,
        separator_token=corpus.open_tokenizer().sep,
        seed=derive_key(context.seed, prefix.name),
        maximum_rows=maximum_rows,
        metadata=unique.metadata,
    )
    return {"tokens": rows.rows * length, **asdict(rows)}
