"""The vectors of a dataset's documents, a shard of consecutive documents at a time."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from megasbp.corpus.tokenizer import Tokenizer
from megasbp.data.indexed_dataset import IndexedDataset
from megasbp.errors import InputError
from megasbp.pairing.embedders import Embedder, open_embedder
from megasbp.storage import Manifest

VECTORS = "vectors.npy"
# A multiple of what the embedders batch at once, so that the cut changes no batch.
DOCUMENTS_PER_SHARD = 1 << 14


def shards_of(documents: int) -> range:
    """Numbers of a dataset's shards: at least one, so that its vectors' width is known."""
    return range(max(1, -(-documents // DOCUMENTS_PER_SHARD)))


def embed_documents(
    shard: int,
    folder: Path,
    *,
    embedder: str,
    documents_per_shard: int,
    dataset: Path,
    tokenizer: Path,
    fitted: Path,
    checkpoint: Path | None = None,
    limit: int | None = None,
) -> dict[str, Any]:
    """Stage function: writes vectors.npy, float32 [documents, d], unit rows; zeros for an unknown text.

    Computed on the first GPU that the process sees, else on the CPU.

    Args:
        embedder: as in `open_embedder`.
        documents_per_shard: shard s holds the s-th so many documents.
        dataset: prefix.
        tokenizer: file of the dataset's tokenizer.
        fitted, checkpoint: as in `open_embedder`.
        limit: only the dataset's first so many documents.

    Returns:
        {"fingerprint", "dimension", "parameters"} of the embedder.
    """
    opened, reader = _open(embedder, tokenizer, fitted, checkpoint)
    documents = IndexedDataset(dataset)
    first = shard * documents_per_shard
    count = len(documents) if limit is None else min(limit, len(documents))
    last = min(first + documents_per_shard, count)
    vectors = opened.embed([reader.decode(documents.document(each)) for each in range(first, last)])
    np.save(folder / VECTORS, vectors, allow_pickle=False)
    return {
        "fingerprint": opened.fingerprint,
        "dimension": vectors.shape[1],
        "parameters": opened.parameters,
    }


def agreed_facts(manifests: Sequence[Manifest]) -> dict[str, Any]:
    """What the shards say of their embedder.

    Raises:
        InputError: they do not say the same: machines of the cluster have different weights.
    """
    facts = manifests[0].facts
    for manifest in manifests:
        if manifest.facts != facts:
            raise InputError(
                f"pairing.embedder: shard {manifest.settings['shard']} was embedded by {manifest.facts}, "
                f"another one by {facts}; give all machines the same weights and versions"
            )
    return facts


@lru_cache(maxsize=1)
def _open(
    embedder: str, tokenizer: Path, fitted: Path, checkpoint: Path | None
) -> tuple[Embedder, Tokenizer]:
    """What a worker keeps from one shard to the next."""
    reader = Tokenizer.load(tokenizer)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    opened = open_embedder(embedder, fitted=fitted, checkpoint=checkpoint, tokenizer=reader, device=device)
    return opened, reader


def forget_embedder() -> None:
    """Gives the memory of the embedder that this process has kept back."""
    _open.cache_clear()
