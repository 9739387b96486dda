"""Embedding by shards: the vectors of the whole, whoever computes them."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from megasbp.corpus.tokenizer import Tokenizer
from megasbp.data.indexed_dataset import IndexedDataset, IndexedDatasetWriter
from megasbp.errors import InputError
from megasbp.pairing.embedders import open_embedder
from megasbp.pairing.embedding_shards import agreed_facts, embed_documents, forget_embedder, shards_of
from megasbp.shards.config import INLINE, ShardsConfig
from megasbp.shards.engine import run_shards
from megasbp.storage import Manifest

WORDS = ("lava", "magma", "cat", "mat", "tax", "budget", "parliament", "volcano", "sleeps", "erupts")
ROWS = 40


def texts() -> list[str]:
    generator = np.random.default_rng(0)
    return [" ".join(generator.choice(WORDS, size=generator.integers(3, 30))) for _ in range(ROWS)]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tokenizer, a dataset of the texts, and a fitted TF-IDF."""
    folder = tmp_path_factory.mktemp("corpus")
    tokenizer = Tokenizer.train(iter(texts()), 300)
    tokenizer.save(folder / "tokenizer.json")
    metadata = {"tokenizer": tokenizer.hash, "bos": tokenizer.bos, "eos": tokenizer.eos}
    with IndexedDatasetWriter(folder / "units", np.uint16, metadata=metadata) as writer:
        for tokens in tokenizer.encode_batch(texts()):
            writer.add_document(np.r_[tokenizer.bos, tokens, tokenizer.eos])
    (folder / "fitted").mkdir()
    open_embedder("tfidf", fit_texts=texts()).save_fit(folder / "fitted")
    return folder


def embed(corpus: Path, folder: Path, documents_per_shard: int, config: ShardsConfig) -> np.ndarray:
    paths = {"tokenizer": corpus / "tokenizer.json", "dataset": corpus / "units", "fitted": corpus / "fitted"}
    count = -(-ROWS // documents_per_shard)
    manifests = run_shards(
        embed_documents,
        range(count),
        folder,
        settings={"embedder": "tfidf", "documents_per_shard": documents_per_shard},
        inputs={"units": IndexedDataset(corpus / "units").fingerprint},
        paths=paths,
        config=config,
        announce=None,
    )
    forget_embedder()
    whole = open_embedder("tfidf", fit_texts=texts())
    assert agreed_facts(manifests) == {
        "fingerprint": whole.fingerprint,
        "dimension": whole.embed(texts()).shape[1],
        "parameters": 0,
    }
    return np.concatenate([np.load(folder / f"shard-{shard:06d}" / "vectors.npy") for shard in range(count)])


def all_bytes(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_shards_hold_the_vectors_of_the_whole(corpus: Path, tmp_path: Path) -> None:
    expected = open_embedder("tfidf", fit_texts=texts()).embed(texts())
    for documents_per_shard in (7, ROWS):
        folder = tmp_path / str(documents_per_shard)
        assert (embed(corpus, folder, documents_per_shard, INLINE) == expected).all()


def test_workers_write_the_same_vectors(corpus: Path, tmp_path: Path) -> None:
    expected = open_embedder("tfidf", fit_texts=texts()).embed(texts())
    assert (embed(corpus, tmp_path / "vectors", 15, ShardsConfig(workers=2)) == expected).all()


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs ray (pip install .[ray])")
def test_a_ray_cluster_writes_the_same_bytes(corpus: Path, tmp_path: Path) -> None:
    for engine, config in (("inline", INLINE), ("ray", ShardsConfig(engine="ray", workers=2))):
        embed(corpus, tmp_path / engine, 15, config)
    assert all_bytes(tmp_path / "ray") == all_bytes(tmp_path / "inline")


@pytest.mark.parametrize(("documents", "count"), [(0, 1), (1, 1), (1 << 14, 1), ((1 << 14) + 1, 2)])
def test_a_dataset_has_at_least_one_shard(documents: int, count: int) -> None:
    assert len(shards_of(documents)) == count


def test_machines_with_other_weights_are_named() -> None:
    def manifest(shard: int, fingerprint: str) -> Manifest:
        facts: dict[str, Any] = {"fingerprint": fingerprint, "dimension": 8, "parameters": 0}
        return Manifest("embed", {}, {"shard": shard}, facts=facts)

    with pytest.raises(
        InputError, match=r"shard 1 was embedded by .*'b'.*another one by .*'a'.* same weights"
    ):
        agreed_facts([manifest(0, "a"), manifest(1, "b")])
