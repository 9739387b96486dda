"""Embeddings without any weights: weighted words, reduced to a few hundred dimensions."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

from megasbp.errors import InputError
from megasbp.pairing.embedding import Progress, hash_texts, unit_rows
from megasbp.storage import hash_object, publish_json, read_json

_SETTINGS = {"dimensions": 256, "maximum_words": 65536, "sublinear": True, "seed": 0}
_WEIGHTING: dict[str, Any] = {"sublinear_tf": _SETTINGS["sublinear"], "dtype": np.float32}
_TEXTS_AT_ONCE = 4096
_NAME = "tfidf.json"


class TfidfEmbedder:
    """Latent semantic analysis: tf-idf of words, then the leading right singular vectors.

    Deerwester et al., "Indexing by latent semantic analysis", Journal of the American Society for Information
    Science 41, 1990. Term frequencies enter as 1 + log(tf). Deterministic for one thread count.

    Args:
        words: fitted.
        directions: float32 [d, words], what the weights are reduced to.
        fingerprint: see `Embedder`.
    """

    def __init__(self, words: TfidfVectorizer, directions: np.ndarray, fingerprint: str) -> None:
        self._words, self._directions = words, directions
        self.fingerprint = fingerprint
        self.parameters = 0

    @classmethod
    def fit(cls, texts: Sequence[str]) -> "TfidfEmbedder":
        """Learns words, weights and directions from n texts.

        Raises:
            InputError: fewer than 2 texts, or texts without words.
        """
        if len(texts) < 2:
            raise InputError(
                f"pairing.embedder = 'tfidf' was given {len(texts)} texts to fit, needs at least 2"
            )
        words = TfidfVectorizer(max_features=_SETTINGS["maximum_words"], **_WEIGHTING)
        try:
            weights = words.fit_transform(texts)
        except ValueError as error:
            raise InputError(
                f"pairing.embedder = 'tfidf' cannot be fitted ({error}); use another embedder"
            ) from None
        reduce = TruncatedSVD(
            n_components=min(_SETTINGS["dimensions"], weights.shape[0], weights.shape[1]),
            random_state=_SETTINGS["seed"],
        )
        reduce.fit(weights)
        fitted = {"texts": hash_texts(texts), "scikit-learn": sklearn.__version__, **_SETTINGS}
        return cls(words, reduce.components_, f"tfidf:{hash_object(fitted)}")

    def save_fit(self, folder: Path) -> None:
        """Writes what was learnt from the texts into an existing folder."""
        publish_json(
            folder / _NAME,
            {"words": self._words.get_feature_names_out().tolist(), "fingerprint": self.fingerprint},
        )
        np.save(folder / "weights.npy", self._words.idf_, allow_pickle=False)
        np.save(folder / "directions.npy", self._directions, allow_pickle=False)

    @classmethod
    def load(cls, folder: Path) -> "TfidfEmbedder":
        """The embedder that `save_fit` wrote; it gives the same bytes.

        Raises:
            InputError: the folder holds none.
        """
        saved = read_json(folder / _NAME)
        words = TfidfVectorizer(
            vocabulary={word: column for column, word in enumerate(saved["words"])}, **_WEIGHTING
        )
        words.idf_ = np.load(folder / "weights.npy", allow_pickle=False)
        return cls(words, np.load(folder / "directions.npy", allow_pickle=False), saved["fingerprint"])

    def embed(self, texts: Sequence[str], progress: Progress | None = None) -> np.ndarray:
        """float32 [n, d] unit rows; see `Embedder.embed`."""
        vectors = np.empty((len(texts), len(self._directions)), dtype=np.float32)
        for start in range(0, len(texts), _TEXTS_AT_ONCE):
            stop = min(start + _TEXTS_AT_ONCE, len(texts))
            vectors[start:stop] = unit_rows(self._words.transform(texts[start:stop]) @ self._directions.T)
            if progress is not None:
                progress(stop, len(texts))
        return vectors
