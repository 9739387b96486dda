"""Embeddings without any weights: weighted words, reduced to a few hundred dimensions."""

from collections.abc import Sequence

import numpy as np
import sklearn
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

from megasbp.errors import InputError
from megasbp.pairing.embedding import Progress, hash_texts, unit_rows
from megasbp.storage import hash_object

_SETTINGS = {"dimensions": 256, "maximum_words": 65536, "sublinear": True, "seed": 0}
_TEXTS_AT_ONCE = 4096


class TfidfEmbedder:
    """Latent semantic analysis: tf-idf of words, then the leading right singular vectors.

    Deerwester et al., "Indexing by latent semantic analysis", Journal of the American Society for Information
    Science 41, 1990. Term frequencies enter as 1 + log(tf). Deterministic for one thread count.

    Args:
        fit_texts: n texts that words, weights and directions are learned from.

    Raises:
        InputError: fewer than 2 texts, or texts without words.
    """

    def __init__(self, fit_texts: Sequence[str]) -> None:
        if len(fit_texts) < 2:
            raise InputError(
                f"pairing.embedder = 'tfidf' was given {len(fit_texts)} texts to fit, needs at least 2"
            )
        self._words = TfidfVectorizer(
            max_features=_SETTINGS["maximum_words"], sublinear_tf=_SETTINGS["sublinear"], dtype=np.float32
        )
        try:
            weights = self._words.fit_transform(fit_texts)
        except ValueError as error:
            raise InputError(
                f"pairing.embedder = 'tfidf' cannot be fitted ({error}); use another embedder"
            ) from None
        self._reduce = TruncatedSVD(
            n_components=min(_SETTINGS["dimensions"], weights.shape[0], weights.shape[1]),
            random_state=_SETTINGS["seed"],
        )
        self._reduce.fit(weights)
        fitted = {"texts": hash_texts(fit_texts), "scikit-learn": sklearn.__version__, **_SETTINGS}
        self.fingerprint = f"tfidf:{hash_object(fitted)}"
        self.parameters = 0

    def embed(self, texts: Sequence[str], progress: Progress | None = None) -> np.ndarray:
        """float32 [n, d] unit rows; see `Embedder.embed`."""
        vectors = np.empty((len(texts), len(self._reduce.components_)), dtype=np.float32)
        for start in range(0, len(texts), _TEXTS_AT_ONCE):
            stop = min(start + _TEXTS_AT_ONCE, len(texts))
            vectors[start:stop] = unit_rows(self._reduce.transform(self._words.transform(texts[start:stop])))
            if progress is not None:
                progress(stop, len(texts))
        return vectors
