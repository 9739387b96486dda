"""Embeddings of real text to search among, kept in a cache: making them takes minutes."""

import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

from megasbp.errors import InputError
from megasbp.pairing.embedding import hash_texts, unit_rows
from megasbp.pairing.sentence_embedder import SentenceEmbedder, minilm_folder
from megasbp.storage import publishing_file

WIDTH = 384
_WORDS = 65_536
_MINILM_TOKENS = 128
# Sentences are joined up to this, and paragraphs are not cut below it.
_PASSAGE_WORDS = 40


def passages(texts: Sequence[str], limit: int) -> list[str]:
    """The first passages of at least 40 words: paragraphs, or where they give too few, runs of sentences."""
    lines = [line for text in texts for line in text.split("\n")]
    found = [line for line in lines if len(line.split()) >= _PASSAGE_WORDS]
    if len(found) < limit:
        found = [passage for line in lines for passage in _sentences(line)]
    return found[:limit]


def _sentences(paragraph: str) -> list[str]:
    """A paragraph cut between sentences into passages of a sentence or more."""
    return [sentence for sentence in re.split(r"(?<=[.!?]) ", paragraph) if len(sentence.split()) >= 8]


def _cached(file: Path, count: int, make: Callable[[], np.ndarray]) -> Path:
    if not file.is_file():
        print(f"embedding {count:,} passages into {file}", file=sys.stderr, flush=True)
        file.parent.mkdir(parents=True, exist_ok=True)
        vectors = make()
        with publishing_file(file) as partial, open(partial, "wb") as opened:
            np.save(opened, vectors)
    return file


def lsa_vectors(texts: Sequence[str], cache: Path) -> Path:
    """TF-IDF of words reduced to 384 numbers: float32 unit rows, one for each text with known words.

    Raises:
        InputError: fewer texts than numbers.
    """
    if len(texts) <= WIDTH:
        raise InputError(f"{len(texts)} passages, more than {WIDTH} are needed; give a larger --corpus")

    def make() -> np.ndarray:
        words = TfidfVectorizer(max_features=_WORDS, sublinear_tf=True, dtype=np.float32)
        weights = words.fit_transform(texts)
        vectors = TruncatedSVD(n_components=WIDTH, random_state=0).fit_transform(weights)
        return unit_rows(vectors[np.linalg.norm(vectors, axis=1) > 1e-6]).astype(np.float32)

    return _cached(cache / f"lsa-{hash_texts(texts)[:16]}.npy", len(texts), make)


def minilm_vectors(texts: Sequence[str], cache: Path) -> Path:
    """MiniLM of each text's first 128 tokens: float32 unit rows.

    Raises:
        InputError: MiniLM or sentence-transformers is not installed.
    """

    def make() -> np.ndarray:
        return SentenceEmbedder(str(minilm_folder()), maximum_tokens=_MINILM_TOKENS).embed(texts)

    return _cached(cache / f"minilm-{hash_texts(texts)[:16]}.npy", len(texts), make)
