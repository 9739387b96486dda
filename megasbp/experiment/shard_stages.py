"""The corpus as preprocessed shards: near-duplicates by the shards engine, splits, datasets by copying.

No text is read. Memory: the table of a shard's documents, and what `assign_splits` takes.
"""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from megasbp.corpus.splits import SPLITS, assign_splits
from megasbp.data.indexed_dataset import IndexedDataset, IndexedDatasetWriter
from megasbp.data.preprocess import token_dtype
from megasbp.data.preprocessed import PreprocessedCorpus
from megasbp.experiment.recipe import Recipe
from megasbp.experiment.stages import StageResult, Workspace
from megasbp.overlap.corpus_clusters import cluster_corpus, disk_needed, load_clusters
from megasbp.storage import publishing_file, require_free_space

# Settings that decide where the documents go.
_DECIDING = {
    "seed",
    "unique",
    "oracle",
    "validation",
    "test",
    "duplicate_threshold",
    "duplicate_shingle_width",
}
_ASSIGNED = pa.schema([("id", pa.large_string()), ("cluster", pa.int64()), ("split", pa.int8())])
_ROWS = pa.schema(
    [("id", pa.large_string()), ("title", pa.string()), ("cluster", pa.int64()), ("bytes", pa.int64())]
)


def split_shards(recipe: Recipe, workspace: Workspace) -> StageResult:
    """Groups near-duplicates by the shards' tokens and assigns each document.

    Writes documents.parquet: a row per document in reading order, a row group per shard that has documents.
    """
    settings = recipe.corpus
    assert settings.shards is not None
    corpus = PreprocessedCorpus.open(settings.shards)

    def make(folder: Path) -> dict[str, Any]:
        table, duplicates = folder / "documents.parquet", folder / "duplicates"
        # A call that was stopped after the table was published may have begun to remove what led to it.
        if not table.exists():
            if not duplicates.exists():
                documents = corpus.summary["documents"]
                require_free_space(folder, disk_needed(documents, settings.duplicate_threshold))
            cluster_corpus(
                corpus.datasets,
                duplicates,
                width=settings.duplicate_shingle_width,
                threshold=settings.duplicate_threshold,
                seed=settings.seed,
                shards=recipe.shards,
                announce=workspace.announce,
            )
            clusters = load_clusters(duplicates)
            splits = assign_splits(
                clusters,
                settings.seed,
                unique=settings.unique,
                oracle=settings.oracle,
                validation=settings.validation,
                test=settings.test,
            )
            _write_assigned(table, corpus, clusters, splits)
        shutil.rmtree(duplicates, ignore_errors=True)
        return {
            **_counts(table),
            "quarantine": {
                "accepted": corpus.summary["documents"],
                "rejected": corpus.summary["rejected"],
                "reasons": corpus.summary["reasons"],
            },
        }

    return workspace.stage(
        "split",
        inputs={"shards": corpus.fingerprint},
        settings={"corpus": settings.model_dump(mode="json", include=_DECIDING)},
        make=make,
    )


def copy_datasets(
    corpus: PreprocessedCorpus,
    split_folder: Path,
    folder: Path,
    datasets: Mapping[str, tuple[str, ...]],
    metadata: Mapping[str, Any],
) -> dict[str, dict[str, int]]:
    """Writes each dataset and its NAME.parquet (id, title, cluster, bytes) by copying documents' tokens.

    Titles are empty: in the shards they are the first line of the text, if they are there at all.

    Args:
        split_folder: of `split_shards`.
        datasets: name -> the splits whose documents it holds.
        metadata: of the datasets.

    Returns:
        {"documents", "tokens", "bytes"} of each.

    Raises:
        InputError: a shard is damaged.
    """
    sizes = dict.fromkeys(datasets, 0)
    dtype = token_dtype(corpus.tokenizer)
    with ExitStack() as stack:
        writers, tables = {}, {}
        for name in datasets:
            writers[name] = stack.enter_context(IndexedDatasetWriter(folder / name, dtype, metadata=metadata))
            partial = stack.enter_context(publishing_file(folder / f"{name}.parquet"))
            tables[name] = stack.enter_context(pq.ParquetWriter(partial, _ROWS))
        for dataset, rows in _assigned_shards(corpus, split_folder / "documents.parquet"):
            codes = rows["split"].to_numpy()
            for name, splits in datasets.items():
                chosen = np.flatnonzero(np.isin(codes, [SPLITS.index(split) for split in splits]))
                if len(chosen):
                    writers[name].copy_documents(dataset, chosen)
                    kept = rows.take(chosen)
                    tables[name].write_table(kept.select(_ROWS.names))
                    sizes[name] += int(kept["bytes"].to_numpy().sum())
    return {
        name: {"documents": writer.documents, "tokens": writer.tokens, "bytes": sizes[name]}
        for name, writer in writers.items()
    }


def _write_assigned(path: Path, corpus: PreprocessedCorpus, clusters: np.ndarray, splits: np.ndarray) -> None:
    start = 0
    with publishing_file(path) as partial, pq.ParquetWriter(partial, _ASSIGNED) as writer:
        for shard in range(len(corpus.datasets)):
            ids = corpus.column(shard, "id")
            here = slice(start, start + len(ids))
            if len(ids):
                writer.write_table(
                    pa.table([ids, clusters[here], splits[here]], schema=_ASSIGNED), row_group_size=len(ids)
                )
            start += len(ids)


def _assigned_shards(corpus: PreprocessedCorpus, path: Path) -> Iterator[tuple[IndexedDataset, pa.Table]]:
    """Each shard that has documents, and their id, title, cluster, bytes and split."""
    with pq.ParquetFile(path) as file:
        group = 0
        for shard, prefix in enumerate(corpus.datasets):
            dataset = IndexedDataset(prefix)
            if len(dataset):
                rows = file.read_row_group(group)
                titles = pa.array([""]).take(pa.array(np.zeros(len(rows), np.int64)))
                yield (
                    dataset,
                    rows.append_column("title", titles).append_column("bytes", corpus.column(shard, "bytes")),
                )
                group += 1


def _counts(path: Path) -> dict[str, Any]:
    """Documents, clusters, near-duplicates and documents of each split, of a finished documents.parquet."""
    documents = clusters = 0
    splits = np.zeros(len(SPLITS), np.int64)
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(columns=["cluster", "split"]):
            # A cluster is named by its smallest document.
            clusters += int(
                (batch["cluster"].to_numpy() == np.arange(documents, documents + len(batch))).sum()
            )
            splits += np.bincount(batch["split"].to_numpy(), minlength=len(SPLITS))
            documents += len(batch)
    counts = {SPLITS[code]: int(count) for code, count in enumerate(splits) if count}
    return {
        "documents": documents,
        "clusters": clusters,
        "near_duplicates": documents - clusters,
        "splits": dict(sorted(counts.items())),
    }
