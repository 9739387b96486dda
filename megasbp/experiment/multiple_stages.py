"""Larger corpora of unique text, for baselines that say how much more text an arm is worth."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from megasbp.corpus.splits import SPLITS, visiting_order
from megasbp.data.indexed_dataset import IndexedDatasetWriter
from megasbp.experiment.budget import multiple_source
from megasbp.experiment.context import open_dataset, open_tokenizer
from megasbp.experiment.recipe import Recipe
from megasbp.experiment.stages import StageResult, Workspace


def multiple_stage(
    recipe: Recipe,
    workspace: Workspace,
    multiple: int,
    split: StageResult,
    datasets: StageResult,
    tokenizer: StageResult,
) -> StageResult:
    """A dataset of `multiple` times the unique documents: the unique ones, and further ones of the oracle.

    The further documents are taken in the order in which the splits were filled: a smaller multiple is part
    of a larger one, and each is nearly what a larger `corpus.unique` would have been.

    Facts: "documents" and "tokens", separators included.
    """
    name = multiple_source(multiple)
    wanted, seed = multiple * recipe.corpus.unique, recipe.corpus.seed

    def make(folder: Path) -> dict[str, Any]:
        oracle = open_dataset(datasets.folder / "oracle", open_tokenizer(tokenizer))
        table = pq.read_table(split.folder / "documents.parquet", columns=["cluster", "split"])
        codes = table["split"].to_numpy()
        trained = np.isin(codes, [SPLITS.index("unique"), SPLITS.index("oracle")])
        unique = codes[trained] == SPLITS.index("unique")
        chosen = nested_documents(unique, table["cluster"].to_numpy()[trained], wanted, seed)
        with IndexedDatasetWriter(folder / name, oracle.dtype, metadata=oracle.metadata) as writer:
            writer.copy_documents(oracle, chosen)
        return {"documents": writer.documents, "tokens": writer.tokens}

    return workspace.stage(
        f"datasets-x{multiple}",
        inputs={"split": split, "datasets": datasets, "tokenizer": tokenizer},
        settings={"documents": wanted, "seed": seed},
        make=make,
    )


def nested_documents(unique: np.ndarray, clusters: np.ndarray, wanted: int, seed: int) -> np.ndarray:
    """Which of the oracle's documents a larger unique corpus has.

    Args:
        unique: bool [documents], those that every arm has.
        clusters: int64 [documents], near-duplicate cluster of each.
        wanted: documents in all, between the number of unique ones and of all.
        seed: of the splits.

    Returns:
        int64 [wanted], ascending: all unique documents and the first others by their clusters' order.
    """
    others = np.flatnonzero(~unique)
    labels = np.unique(clusters[others])
    # visiting_order gives the labels in their order; sorting by label again gives each label's place in it.
    place = np.argsort(visiting_order(labels, seed), kind="stable")
    order = np.argsort(place[np.searchsorted(labels, clusters[others])], kind="stable")
    return np.sort(np.concatenate([np.flatnonzero(unique), others[order[: wanted - int(unique.sum())]]]))
