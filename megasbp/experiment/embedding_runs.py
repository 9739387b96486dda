"""A dataset's vectors by the recipe's embedder, in shards, and how a stage's vectors are opened."""

from pathlib import Path

from megasbp.data.indexed_dataset import IndexedDataset
from megasbp.experiment.context import TOKENIZER_NAME, Context
from megasbp.experiment.stages import StageResult
from megasbp.pairing.embedding_shards import DOCUMENTS_PER_SHARD, VECTORS, embed_documents, shards_of
from megasbp.pairing.vectors import Vectors
from megasbp.shards.engine import run_shards
from megasbp.storage import Manifest, hash_object

# Folder of a stage of vectors that holds what the embedder has learnt from the corpus.
FITTED = "fitted"
# Folder of the vectors of synthetic text.
SYNTHETIC = "synthetic"


def embed_dataset(
    context: Context,
    dataset: IndexedDataset,
    folder: Path,
    fitted: StageResult,
    checkpoint: Path | None,
    limit: int | None = None,
) -> list[Manifest]:
    """Writes a unit vector per document, in shards below `folder`; returns the shards' manifests.

    Args:
        fitted: what the embedder has learnt from the corpus.
        checkpoint: the model of the embedder "checkpoint"; None for another.
        limit: only the first so many documents; None for all.
    """
    paths = {
        "dataset": dataset.prefix,
        "tokenizer": context.corpus.tokenizer.folder / TOKENIZER_NAME,
        "fitted": fitted.folder,
        **({} if checkpoint is None else {"checkpoint": checkpoint}),
    }
    settings = {
        "embedder": context.recipe.pairing.embedder,
        "documents_per_shard": DOCUMENTS_PER_SHARD,
        **({} if limit is None else {"limit": limit}),
    }
    return run_shards(
        embed_documents,
        shards_of(len(dataset) if limit is None else min(limit, len(dataset))),
        folder,
        settings=settings,
        inputs={"units": dataset.fingerprint, "fitted": fitted.digest},
        paths=paths,
        config=context.shards,
        announce=context.workspace.announce,
    )


def open_vectors(embedded: StageResult, name: str) -> Vectors:
    """The vectors that a stage has below its folder NAME, shard after shard."""
    hashes = {
        file: entry["sha256"]
        for file, entry in embedded.manifest.files.items()
        if file.startswith(f"{name}/") and file.endswith(f"/{VECTORS}")
    }
    # A number of more than six digits is longer than those before it.
    files = sorted(hashes, key=lambda file: (len(file), file))
    digest = hash_object([hashes[file] for file in files])
    return Vectors([embedded.folder / file for file in files], digest=digest)
