"""Losses of documents by three ranks and by one of them alone; run by test_evaluation.py."""

import sys
from pathlib import Path

import numpy as np
from launch import fork_ranks

from megasbp.data.documents import PackedDocuments
from megasbp.data.indexed_dataset import IndexedDataset, IndexedDatasetWriter
from megasbp.evaluation.perplexity import document_losses
from megasbp.model.config import ModelConfig
from megasbp.model.init import initialize
from megasbp.model.transformer import Transformer
from megasbp.parallel.runtime import Runtime

ROW, BATCH = 16, 2


def compare(folder: Path) -> None:
    dataset = IndexedDataset(folder / "documents")
    source = PackedDocuments(dataset, ROW)
    model = Transformer(
        ModelConfig(
            vocabulary_size=32,
            layers=1,
            width=16,
            heads=1,
            kv_heads=1,
            head_dim=16,
            feed_forward=32,
            maximum_positions=ROW,
        )
    )
    initialize(model, seed=0)
    alone = document_losses(model, source, len(dataset), BATCH)
    runtime = Runtime.start()
    try:
        together = document_losses(model, source, len(dataset), BATCH, runtime)
    finally:
        runtime.close()
    assert alone.tokens.sum() > 0
    assert together.nats.tobytes() == alone.nats.tobytes()
    assert together.tokens.tobytes() == alone.tokens.tobytes()


def write_documents(folder: Path) -> None:
    """Some fill many rows, whose losses must be added in the order of the rows."""
    generator = np.random.Generator(np.random.Philox(key=1))
    metadata = {"tokenizer": "none", "bos": 0, "eos": 1, "sep": 2}
    with IndexedDatasetWriter(folder / "documents", np.uint16, metadata=metadata) as writer:
        for length in (5, 200, 3, 90, 40, 7, 150):
            body = generator.integers(3, 32, length)
            writer.add_document(np.concatenate([[0], body, [1]]).astype(np.uint16))


if __name__ == "__main__":
    place = Path(sys.argv[1])
    write_documents(place)
    fork_ranks(compare, 3, place)
