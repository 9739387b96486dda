"""What a pair is worth: how much the true seed lowers the loss of its target on text no model has seen."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from megasbp.addressing import derive_key
from megasbp.errors import InputError
from megasbp.evaluation.resampling import resampled_ratios

# Contrast -> (loss that is larger when the claim holds, loss that is smaller).
CONTRASTS = {
    # The primary one: both models are tuned alike and read the same text; only the relation differs.
    "worth": ("random", "true"),
    # The same synthesizer with a wrong seed: also counts what a misleading seed costs.
    "shuffled": ("shuffled", "true"),
    # The untuned checkpoint without a seed: also counts what tuning alone brings.
    "untuned": ("none", "true"),
}
_REQUIRED = ("true", "random")


def pair_value(
    nats: Mapping[str, np.ndarray],
    tokens: np.ndarray,
    clusters: np.ndarray,
    similarity: np.ndarray | None = None,
    *,
    bin_edges: Sequence[float] | None = None,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Any]:
    """The table of losses and what the true seed is worth, in nats per token of the target.

    Args:
        nats: condition -> float64 [n], the loss of each pair's target:
            "true": synthesizer tuned on true pairs, given the true seed;
            "random": synthesizer tuned on random pairs, given the true seed;
            "shuffled" (optional): synthesizer tuned on true pairs, given another seed;
            "none" (optional): the checkpoint that both were tuned from, given no seed.
        tokens: integers [n] >= 1, predicted tokens of each target, the same in all conditions.
        clusters: integers [n], near-duplicate cluster of each target; whole clusters are resampled, because
            pairs of one target or of alike targets are not independent.
        similarity: floats [n]; gives the table by similarity too.
        bin_edges: ascending edges of the similarity bins [low, high), the last closed; default: quartiles.
        resamples: bootstrap resamples.
        level: nominal coverage of the intervals.
        seed: addresses the bootstrap.

    Returns:
        JSON-able: {"pairs", "tokens", "clusters", "level", "resamples",
        "losses": {condition: nats per token},
        "contrasts": {name of `CONTRASTS`: {"estimate", "low", "high"}}, positive when the true seed helps,
        "by_similarity": [{"low", "high", "pairs", "tokens", "clusters", "losses", "contrasts"}]}.
        The interval is the percentile bootstrap's (Efron, "The jackknife, the bootstrap and other resampling
        plans", 1982); its bounds are None with fewer than 2 clusters.

    Raises:
        ValueError: lengths differ, a required condition is missing, tokens < 1, or edges do not ascend.
        InputError: there are no pairs, or a loss is not finite.
    """
    tokens, clusters = np.asarray(tokens), np.asarray(clusters)
    values = {name: np.asarray(value, dtype=np.float64) for name, value in nats.items()}
    _check(values, tokens, clusters)

    def summary(chosen: np.ndarray, *address: int | str) -> dict[str, Any]:
        key = derive_key(seed, "pair value", *address)
        part = {name: value[chosen] for name, value in values.items()}
        return _summary(part, tokens[chosen], clusters[chosen], resamples, level, key)

    result = {"level": level, "resamples": resamples, **summary(np.ones(len(tokens), dtype=bool), "all")}
    result["by_similarity"] = []
    if similarity is not None:
        similarity = np.asarray(similarity, dtype=np.float64)
        for number, (low, high, chosen) in enumerate(_bins(similarity, bin_edges)):
            if chosen.any():
                part = {"low": low, "high": high, **summary(chosen, "similarity", number)}
                result["by_similarity"].append(part)
    return result


def _check(values: Mapping[str, np.ndarray], tokens: np.ndarray, clusters: np.ndarray) -> None:
    missing = [name for name in _REQUIRED if name not in values]
    unknown = sorted(set(values) - {name for pair in CONTRASTS.values() for name in pair})
    if missing or unknown:
        raise ValueError(f"nats: conditions missing {missing}, unknown {unknown}")
    if not len(tokens):
        raise InputError("pair value: there are no held-out pairs; enlarge the test split")
    for name, value in {**values, "clusters": clusters}.items():
        if value.shape != tokens.shape:
            raise ValueError(f"{name} has shape {value.shape}, tokens {tokens.shape}")
    if tokens.min() < 1:
        raise ValueError(f"tokens has the value {tokens.min()}, every target needs at least 1")
    for name, value in values.items():
        bad = int(np.count_nonzero(~np.isfinite(value)))
        if bad:
            raise InputError(
                f"pair value: {bad} of {len(value)} losses under {name!r} are not finite; "
                "the synthesizer diverged: lower its learning rate"
            )


def _summary(
    values: Mapping[str, np.ndarray],
    tokens: np.ndarray,
    clusters: np.ndarray,
    resamples: int,
    level: float,
    key: int,
) -> dict[str, Any]:
    _, members = np.unique(clusters, return_inverse=True)
    units = np.bincount(members, weights=tokens)
    contrasts = {name: pair for name, pair in CONTRASTS.items() if pair[0] in values}
    # float64 [contrasts, clusters]: nats saved.
    saved = np.stack(
        [np.bincount(members, weights=values[high] - values[low]) for high, low in contrasts.values()]
    )
    replicates = resampled_ratios(saved, units, resamples, key) if len(units) > 1 else None
    table: dict[str, Any] = {}
    for row, name in enumerate(contrasts):
        low = high = None
        if replicates is not None:
            low, high = np.quantile(replicates[row], [(1 - level) / 2, (1 + level) / 2]).tolist()
        table[name] = {"estimate": float(saved[row].sum() / units.sum()), "low": low, "high": high}
    return {
        "pairs": len(tokens),
        "tokens": int(tokens.sum()),
        "clusters": len(units),
        "losses": {name: float(value.sum() / tokens.sum()) for name, value in values.items()},
        "contrasts": table,
    }


def _bins(similarity: np.ndarray, edges: Sequence[float] | None) -> list[tuple[float, float, np.ndarray]]:
    if edges is None:
        bounds = np.unique(np.quantile(similarity, [0, 0.25, 0.5, 0.75, 1]))
        if len(bounds) == 1:
            bounds = np.repeat(bounds, 2)
    else:
        bounds = np.asarray(edges, dtype=np.float64)
        if len(bounds) < 2 or (np.diff(bounds) <= 0).any():
            raise ValueError(f"bin_edges {list(edges)} must be at least two and ascend")
    bins = []
    for number, (low, high) in enumerate(zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)):
        last = number == len(bounds) - 2
        inside = (similarity >= low) & ((similarity <= high) if last else (similarity < high))
        bins.append((low, high, inside))
    return bins
