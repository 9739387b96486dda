"""Quality of synthetic text in figures that need no judge, beside the same figures of real text."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from megasbp.errors import InputError
from megasbp.overlap.clusters import near_duplicate_clusters
from megasbp.overlap.documents import DocumentSource
from megasbp.overlap.ngram_index import NgramIndex
from megasbp.overlap.shingles import repeated_share, shingle_hashes

NOVEL_WIDTHS = (2, 4, 8)
DISTINCT_WIDTHS = (1, 2, 4)
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def quality(
    documents: Sequence[np.ndarray],
    seeds: Sequence[np.ndarray] | None = None,
    corpus: Sequence[DocumentSource | np.ndarray] | None = None,
    width: int = 13,
    *,
    characters: Sequence[int] | None = None,
    copied_above: float = 0.5,
    duplicate_threshold: float = 0.7,
) -> dict[str, Any]:
    """Figures of one set of documents. Deterministic; shares lie in [0, 1].

    Memory: up to 40 bytes per token of the documents, whatever the size of the corpus, which is read four
    times.

    Figures marked (size) depend on the number of documents and tokens: compare them between sets of one size.

    Args:
        documents: integer arrays without bos and eos.
        seeds: the seed of each document, likewise; None for real text.
        corpus: the training corpus, as `NgramIndex.build` takes it. For real text it must not hold the text
            itself.
        width: tokens per shingle for repetition, duplicates and copying.
        characters: length of each document's text.
        copied_above: a document whose coverage exceeds this counts as copied.
        duplicate_threshold: Jaccard similarity of shingles from which on two documents are near-duplicates.

    Returns:
        JSON-able:
        "documents", "tokens": counts.
        "length_tokens", "length_characters" (None where not given): {"mean", "p5", "p25", "p50", "p75",
            "p95", "maximum"}; quantiles are observed lengths.
        "repeated_share": documents in which any shingle occurs twice.
        "near_duplicate_share" (size): documents that have a near-duplicate before them in the set.
        "distinct" (size): {n: distinct n-grams / n-grams} over all documents; None without any.
        "seed_copy" (None without seeds): {"mean_coverage": mean over documents of the share of their tokens
            inside a shingle of the seed, "copied_share": documents above `copied_above`}.
        "corpus_copy" (None without a corpus): the same against the whole corpus, and "longest": {"mean",
            "p95", "maximum"} of the longest stretch in tokens whose every shingle is in the corpus (0 below
            the width).
        "novel" (None without a corpus): {n: share of n-gram occurrences that are nowhere in the corpus}; None
            without any.

    Raises:
        InputError: there are no documents.
        ValueError: seeds or characters are not as many as documents.
    """
    if not len(documents):
        raise InputError("quality: there are no documents; raise the synthetic budget or relax the filters")
    for name, others in (("seeds", seeds), ("characters", characters)):
        if others is not None and len(others) != len(documents):
            raise ValueError(f"{name} has {len(others)} entries, documents {len(documents)}")
    lengths = np.array([len(document) for document in documents], dtype=np.int64)
    clusters = near_duplicate_clusters(documents, width=width, threshold=duplicate_threshold, seed=0)
    result: dict[str, Any] = {
        "documents": len(documents),
        "tokens": int(lengths.sum()),
        "length_tokens": _length_summary(lengths),
        "length_characters": None if characters is None else _length_summary(np.asarray(characters)),
        "repeated_share": _share([repeated_share(document, width) > 0 for document in documents]),
        "near_duplicate_share": _share(clusters != np.arange(len(documents))),
        "distinct": {str(n): distinct_share(documents, n) for n in DISTINCT_WIDTHS},
        "seed_copy": None,
        "corpus_copy": None,
        "novel": None,
    }
    if seeds is not None:
        indices = (NgramIndex.build([np.asarray(seed)], width) for seed in seeds)
        coverage = [index.coverage(document) for index, document in zip(indices, documents, strict=True)]
        result["seed_copy"] = _copy_summary(coverage, copied_above)
    if corpus is not None:
        index = NgramIndex.build(documents, width).within(corpus)
        shares, stretches = zip(*(index.copied(document) for document in documents), strict=True)
        longest = np.array(stretches)
        result["corpus_copy"] = {
            **_copy_summary(shares, copied_above),
            "longest": {
                "mean": float(longest.mean()),
                "p95": int(_observed(longest, 0.95)),
                "maximum": int(longest.max()),
            },
        }
        result["novel"] = {
            str(n): _novel(documents, NgramIndex.build(documents, n).within(corpus)) for n in NOVEL_WIDTHS
        }
    return result


def _share(flags: Sequence[bool] | np.ndarray) -> float:
    return float(np.mean(flags))


def _observed(values: np.ndarray, quantile: float) -> Any:
    return np.quantile(values, quantile, method="inverted_cdf")


def _length_summary(lengths: np.ndarray) -> dict[str, float | int]:
    quantiles = {f"p{round(100 * q)}": int(_observed(lengths, q)) for q in _QUANTILES}
    return {"mean": float(lengths.mean()), **quantiles, "maximum": int(lengths.max())}


def _copy_summary(coverage: Sequence[float], copied_above: float) -> dict[str, float]:
    values = np.asarray(coverage)
    return {"mean_coverage": float(values.mean()), "copied_share": _share(values > copied_above)}


def distinct_share(documents: Sequence[np.ndarray], width: int) -> float | None:
    """Distinct n-grams, n = `width`, over n-grams; it falls with the amount of text. None without any."""
    hashes = np.concatenate([shingle_hashes(document, width) for document in documents])
    return len(np.unique(hashes)) / len(hashes) if len(hashes) else None


def _novel(documents: Sequence[np.ndarray], index: NgramIndex) -> float | None:
    known = np.concatenate([index.contains(document) for document in documents])
    return float(np.mean(~known)) if len(known) else None
