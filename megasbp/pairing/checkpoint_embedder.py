"""Embeddings by the project's own model: the corpus finds its relations with nothing from outside."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from megasbp.corpus.tokenizer import Tokenizer
from megasbp.errors import InputError
from megasbp.model.transformer import Transformer
from megasbp.pairing.embedding import Progress, count_parameters, hash_tensors, length_batches, unit_rows
from megasbp.storage import hash_object

_TEXTS_AT_ONCE = 4096
_TOKENS_PER_BATCH = 8192
_CENTRE_TEXTS = 1024
_NAME = "centre.npy"


class CheckpointEmbedder:
    """Mean of a document's final hidden states, less the mean of the corpus, as a unit row.

    The hidden states of a language model lie in a narrow cone: without the centre all documents are alike.

    Args:
        model: weights, on the device to compute on.
        tokenizer: the model's own.
        centre: float64 [D], the mean of the corpus; None for zeros.
        maximum_tokens: longer documents are cut; the model's largest position by default.
    """

    def __init__(
        self,
        model: Transformer,
        tokenizer: Tokenizer,
        centre: np.ndarray | None = None,
        *,
        maximum_tokens: int | None = None,
    ) -> None:
        self._model = model.eval()
        self._tokenizer = tokenizer
        self._maximum = maximum_tokens or model.config.maximum_positions
        self._centre = np.zeros(model.config.width) if centre is None else centre
        settings = {
            "weights": hash_tensors(sorted(model.state_dict().items())),
            "tokenizer": tokenizer.hash,
            "centre": self._centre.tolist(),
            "maximum_tokens": self._maximum,
            "compute_dtype": str(model.compute_dtype),
        }
        self.fingerprint = f"checkpoint:{hash_object(settings)}"
        self.parameters = count_parameters(model)

    @classmethod
    def fit(
        cls,
        model: Transformer,
        tokenizer: Tokenizer,
        texts: Sequence[str],
        *,
        maximum_tokens: int | None = None,
    ) -> "CheckpointEmbedder":
        """Finds the centre: the mean over at most 1,024 of the texts, evenly spaced.

        Raises:
            InputError: no texts.
        """
        if not len(texts):
            raise InputError("pairing.embedder = 'checkpoint' was given no texts to find the centre with")
        step = -(-len(texts) // _CENTRE_TEXTS)
        around_zero = cls(model, tokenizer, maximum_tokens=maximum_tokens)
        centre = around_zero._means(texts[::step], None).mean(axis=0)
        return cls(model, tokenizer, centre, maximum_tokens=maximum_tokens)

    def save_fit(self, folder: Path) -> None:
        """Writes the centre into an existing folder."""
        np.save(folder / _NAME, self._centre, allow_pickle=False)

    @classmethod
    def load(cls, model: Transformer, tokenizer: Tokenizer, folder: Path) -> "CheckpointEmbedder":
        """The embedder with the centre that `save_fit` wrote."""
        return cls(model, tokenizer, np.load(folder / _NAME, allow_pickle=False))

    def embed(self, texts: Sequence[str], progress: Progress | None = None) -> np.ndarray:
        """float32 [n, D] unit rows; see `Embedder.embed`."""
        return unit_rows(self._means(texts, progress) - self._centre)

    @torch.inference_mode()
    def _means(self, texts: Sequence[str], progress: Progress | None) -> np.ndarray:
        """float64 [n, D]: mean hidden state over `bos doc`, cut to the maximum."""
        means = np.empty((len(texts), self._model.config.width), dtype=np.float64)
        done = 0
        for start in range(0, len(texts), _TEXTS_AT_ONCE):
            documents = self._tokenizer.encode_batch(list(texts[start : start + _TEXTS_AT_ONCE]))
            lengths = [min(len(document) + 1, self._maximum) for document in documents]
            for batch in length_batches(lengths, _TOKENS_PER_BATCH):
                rows = [documents[position][: self._maximum - 1] for position in batch]
                means[start + batch] = self._batch_means(rows)
                done += len(batch)
                if progress is not None:
                    progress(done, len(texts))
        return means

    def _batch_means(self, documents: list[np.ndarray]) -> np.ndarray:
        lengths = torch.tensor([len(document) + 1 for document in documents])
        shape = (len(documents), int(lengths.max()))
        tokens = torch.full(shape, self._tokenizer.eos, dtype=torch.int64)
        tokens[:, 0] = self._tokenizer.bos
        for row, document in enumerate(documents):
            tokens[row, 1 : len(document) + 1] = torch.from_numpy(np.asarray(document, dtype=np.int64))
        positions = torch.arange(shape[1]).expand(shape)
        real = positions < lengths[:, None]
        # As in a batch of the data room: one segment a row, padding is segment -1.
        segments = torch.where(real, 0, -1)
        device = next(self._model.parameters()).device
        hidden_BSD = self._model.hidden(tokens.to(device), positions.to(device), segments.to(device))
        weights_BS1 = real.to(device, torch.float32)[..., None]
        sums_BD = (hidden_BSD.float() * weights_BS1).sum(dim=1)
        return (sums_BD.cpu().double() / lengths[:, None]).numpy()
