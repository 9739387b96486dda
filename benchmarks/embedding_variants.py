"""Ways from a language model's states to a document's vector, chosen by the topics of the neighbours."""

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import torch

from megasbp.corpus.tokenizer import Tokenizer
from megasbp.model.transformer import Transformer
from megasbp.pairing.embedding import length_batches, unit_rows
from megasbp.pairing.search import nearest_neighbours

_NEIGHBOURS = 10
# Weights of tokens: None is the plain mean; else a / (a + share of the token), Arora et al. 2017 (SIF).
_SMOOTHINGS = (None, 1e-2, 1e-3, 1e-4)
# Leading principal components removed after centring, Mu & Viswanath 2018; "whiten" gives all equal variance.
_REMOVALS: tuple[int | str, ...] = (0, 1, 2, 4, 8, "whiten")

# (layer, unit tokens, smoothing) -> float64 [n, D].
Means = dict[tuple[str, bool, float | None], np.ndarray]


def best(
    model: Transformer,
    tokenizer: Tokenizer,
    fit: list[str],
    choice: list[str],
    topics: np.ndarray,
    wanted: list[str],
) -> tuple[dict[str, Any], np.ndarray]:
    """The variant whose ten neighbours agree most in topic on `choice`, and its vectors of `wanted`.

    Args:
        fit: texts that the shares of tokens, the centre and the components come from.
        topics: of `choice`.

    Returns:
        The setting, with the variants tried and its agreement on `choice`; float32 [n, D] unit rows.
    """
    shares = _token_shares(tokenizer, fit)
    fitted, means = (_means(model, tokenizer, shares, texts) for texts in (fit, choice))
    results = []
    for key, removed in product(means, _REMOVALS):
        vectors = _finish(fitted[key], means[key], removed)
        index = nearest_neighbours(vectors, vectors, _NEIGHBOURS, exclude_same_row=True)[1]
        results.append((float((topics[index] == topics[:, None]).mean()), key, removed))
    agreement, key, removed = max(results, key=lambda result: result[0])
    setting = dict(zip(("layer", "unit_tokens", "smoothing"), key, strict=True))
    facts = {**setting, "removed": removed, "variants": len(results), "agreement_where_chosen": agreement}
    return facts, _finish(fitted[key], _means(model, tokenizer, shares, wanted)[key], removed)


def _token_shares(tokenizer: Tokenizer, texts: list[str]) -> np.ndarray:
    """float64 [V], the share of each token in the texts; 1 for bos, which every document has."""
    counts = np.zeros(tokenizer.vocabulary_size)
    for tokens in tokenizer.encode_batch(texts):
        counts += np.bincount(tokens, minlength=len(counts))
    shares = counts / counts.sum()
    shares[tokenizer.bos] = 1
    return shares


@torch.inference_mode()
def _means(model: Transformer, tokenizer: Tokenizer, shares: np.ndarray, texts: list[str]) -> Means:
    """Weighted means, float64 [n, D], of each variant of the states of `bos document`.

    Layers: "0" the token embeddings, "N" after block N, "final" after the final norm, too. Unit tokens: each
    state is scaled to length 1 before the mean, so that a few long ones do not decide it.
    """
    layers: dict[str, torch.Tensor] = {}

    def remember(name: str) -> Callable[..., None]:
        def hook(module: torch.nn.Module, inputs: Any, output: torch.Tensor) -> None:
            layers[name] = output.float()

        return hook

    parts = {"0": model.embedding, "final": model.norm}
    parts |= {str(number + 1): block for number, block in enumerate(model.blocks.values())}
    handles = [part.register_forward_hook(remember(name)) for name, part in parts.items()]
    weights = {
        smoothing: torch.from_numpy(
            np.ones(len(shares)) if smoothing is None else smoothing / (smoothing + shares)
        ).float()
        for smoothing in _SMOOTHINGS
    }
    longest = model.config.maximum_positions
    documents = [
        torch.from_numpy(np.concatenate([[tokenizer.bos], tokens]).astype(np.int64)[:longest])
        for tokens in tokenizer.encode_batch(texts)
    ]
    means = {
        key: np.empty((len(texts), model.config.width)) for key in product(parts, (False, True), _SMOOTHINGS)
    }
    for batch in length_batches([len(document) for document in documents], 8192):
        rows = [documents[place] for place in batch]
        tokens = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=tokenizer.eos)
        real = torch.arange(tokens.shape[1]) < torch.tensor([len(row) for row in rows])[:, None]
        positions = torch.arange(tokens.shape[1]).expand(tokens.shape)
        model.hidden(tokens, positions, torch.where(real, 0, -1))
        for (layer, unit, smoothing), values in means.items():
            state = layers[layer]
            weight = weights[smoothing][tokens] * real
            if unit:
                weight = weight / state.norm(dim=-1).clamp_min(1e-12)
            values[batch] = torch.einsum("bs,bsd->bd", weight, state).double().numpy()
            values[batch] /= (weights[smoothing][tokens] * real).sum(dim=1, keepdim=True).double().numpy()
    for handle in handles:
        handle.remove()
    return means


def _finish(fitted: np.ndarray, means: np.ndarray, removed: int | str) -> np.ndarray:
    """float32 [n, D] unit rows: centred, without the leading components, as fitted."""
    centre = fitted.mean(axis=0)
    _, sizes, directions = np.linalg.svd(fitted - centre, full_matrices=False)
    vectors = means - centre
    if removed == "whiten":
        vectors = vectors @ directions.T / sizes
    else:
        vectors = vectors - vectors @ directions[:removed].T @ directions[:removed]
    return unit_rows(vectors)
