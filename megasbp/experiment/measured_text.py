"""Which documents of a text are measured, and the seeds that they were written from."""

import numpy as np
import pyarrow.parquet as pq

import megasbp._C as core
from megasbp.addressing import derive_key
from megasbp.experiment.context import Context
from megasbp.experiment.stages import StageResult


def measured_documents(context: Context, name: str, count: int) -> np.ndarray:
    """Numbers of the documents that figures are taken of, int64 ascending: all of them, or a sample.

    Args:
        name: "real", or the arm.
        count: how many documents the text has; of more than quality.maximum_documents so many are drawn.
    """
    most = context.recipe.quality.maximum_documents
    if count <= most:
        return np.arange(count)
    return np.sort(core.permute(count, derive_key(context.seed, "measured text", name), np.arange(most)))


def seeds_of(synthesis: StageResult, documents: np.ndarray) -> np.ndarray:
    """The seed of each of these accepted documents, int64, read a batch of the provenance at a time.

    Args:
        documents: numbers in the synthetic dataset, ascending.
    """
    found, passed = [np.empty(0, np.int64)], 0
    file = pq.ParquetFile(synthesis.folder / "provenance.parquet")
    for batch in file.iter_batches(columns=["seed_doc", "accepted"]):
        seeds = batch.filter(batch["accepted"])["seed_doc"].to_numpy()
        first, end = np.searchsorted(documents, [passed, passed + len(seeds)])
        found.append(seeds[documents[first:end] - passed])
        passed += len(seeds)
    return np.concatenate(found)
