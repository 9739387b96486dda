"""Which planted duplicates are found: edited copies among paragraphs, the same shingles for all tools.

Recall is over planted pairs whose exact similarity reaches the threshold, the false-positive rate over those
below it.
"""

from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks.measuring import OURS, Measure, Side, not_installed
from megasbp.corpus.tokenizer import Tokenizer
from megasbp.data.indexed_dataset import IndexedDatasetWriter
from megasbp.overlap.clusters import rows_per_band
from megasbp.overlap.corpus_clusters import cluster_corpus, load_clusters
from megasbp.overlap.shingles import jaccard_pairs, shingle_hashes
from megasbp.overlap.signatures import Signatures, bands_at
from megasbp.shards.publication import shard_folder

WIDTH, THRESHOLD, SEED = 5, 0.7, 1
SLOTS = 128
_SHARDS = 4

Found = set[tuple[int, int]]


def write_dataset(prefix: Path, documents: Sequence[np.ndarray]) -> Path:
    """An indexed dataset of the documents, at its prefix."""
    with IndexedDatasetWriter(prefix, np.uint16) as writer:
        for document in documents:
            writer.add_document(document)
    return prefix


def measure(texts: Sequence[str], tokenizer: Tokenizer, folder: Path, planted: int) -> list[Measure]:
    """Plants copies and looks for them with every tool.

    Args:
        texts: paragraphs; the first `planted` of a random order get a copy.
        folder: made here; gets datasets and the stages' folders.
    """
    tokens, pairs = _plant(texts, tokenizer, planted)
    first, second = np.array(pairs).T
    similarity = jaccard_pairs(tokens, first, tokens, second, WIDTH)
    seconds = _cluster(tokens, folder)
    sets = [[hashed.tobytes() for hashed in np.unique(shingle_hashes(d, WIDTH))] for d in tokens]
    found = {**_ours(folder), **_rensa(sets), **_datasketch(sets)}

    recall: dict[str, Side] = {}
    false_positives: dict[str, Side] = {}
    above = similarity >= THRESHOLD
    for name, answer in found.items():
        if isinstance(answer, str):
            recall[name], false_positives[name] = Side(missing=answer), Side(missing=answer)
            continue
        hit = np.array([pair in answer for pair in pairs])
        returned = np.array(sorted(answer), np.int64).reshape(-1, 2)
        exact = jaccard_pairs(tokens, returned[:, 0], tokens, returned[:, 1], WIDTH)
        just_above = above & (similarity < THRESHOLD + 0.1)
        recall[name] = Side(
            [float(hit[above].mean())], facts={"just_above_the_threshold": float(hit[just_above].mean())}
        )
        facts = {"pairs_returned": len(answer), "below_the_threshold": int((exact < THRESHOLD).sum())}
        false_positives[name] = Side([float(hit[~above].mean())], facts=facts)
    others = {"rensa, bands and estimate": 1.0, "datasketch, bands and estimate": 1.0}
    title = f"{len(pairs):,} planted pairs among {len(tokens):,} paragraphs"
    return [
        Measure(f"{title}, recall of {above.sum():,}", "", True, recall, target_limit=0.93),
        Measure(f"{title}, false positives of {(~above).sum():,}", "", False, false_positives, others),
        Measure("clusters of them, all stages", "s", False, {OURS: seconds}),
    ]


def _plant(
    texts: Sequence[str], tokenizer: Tokenizer, planted: int
) -> tuple[list[np.ndarray], list[tuple[int, int]]]:
    """Tokens of the texts and of the copies behind them, and the planted pairs."""
    generator = np.random.default_rng(SEED)
    words = [text.split() for text in texts]
    vocabulary = sorted({word for document in words for word in document})
    originals = generator.permutation(len(texts))[:planted]
    copies = [_edited(words[original], vocabulary, generator) for original in originals]
    tokens = tokenizer.encode_batch([" ".join(document) for document in words + copies])
    pairs = [(int(original), len(texts) + number) for number, original in enumerate(originals)]
    return [document.astype(np.int64) for document in tokens], pairs


def _edited(words: list[str], vocabulary: list[str], generator: np.random.Generator) -> list[str]:
    """One of: words deleted, words substituted, the end cut off."""
    kind = generator.integers(3)
    if kind == 0:
        kept = generator.random(len(words)) >= generator.uniform(0, 0.1)
        return [word for word, keep in zip(words, kept, strict=True) if keep]
    if kind == 1:
        changed = generator.random(len(words)) < generator.uniform(0, 0.08)
        return [
            vocabulary[generator.integers(len(vocabulary))] if change else word
            for word, change in zip(words, changed, strict=True)
        ]
    return words[: max(1, round(len(words) * generator.uniform(0.4, 1)))]


def _cluster(tokens: list[np.ndarray], folder: Path) -> Side:
    """Runs our stages into `folder`."""
    folder.mkdir()
    # As many shards as a small run has tasks, so that nothing is measured in one piece.
    bounds = [len(tokens) * shard // _SHARDS for shard in range(_SHARDS + 1)]
    datasets = [
        write_dataset(folder / f"dataset-{shard}", tokens[bounds[shard] : bounds[shard + 1]])
        for shard in range(_SHARDS)
    ]
    start = perf_counter()
    facts = cluster_corpus(
        datasets, folder / "run", width=WIDTH, threshold=THRESHOLD, seed=SEED, announce=None
    )
    seconds = perf_counter() - start
    return Side([seconds], note=f"{_SHARDS} shards in this process", facts=facts)


def _ours(folder: Path) -> dict[str, Found]:
    """Pairs in one cluster, which are compared; by bands and estimate; by the bands alone."""
    parts = [Signatures.open(shard_folder(folder / "run" / "signatures", shard)) for shard in range(_SHARDS)]
    keys = np.concatenate([part.keys for part in parts], 1)
    slots = np.concatenate([part.slots for part in parts])
    proposed: Found = set()
    for band in keys:
        order = np.argsort(band, kind="stable")
        for group in np.split(order, np.flatnonzero(np.diff(band[order])) + 1):
            proposed |= _within(group.tolist())
    agreeing = {pair: (slots[pair[0]] == slots[pair[1]]).mean() for pair in proposed}
    # A slot of one byte agrees by chance once in 256.
    similar = {pair for pair, share in agreeing.items() if (share - 1 / 256) / (1 - 1 / 256) >= THRESHOLD}
    clusters: dict[int, list[int]] = {}
    for document, label in enumerate(load_clusters(folder / "run").tolist()):
        clusters.setdefault(label, []).append(document)
    joined = {pair for members in clusters.values() for pair in _within(members)}
    return {
        f"{OURS}, clusters": joined,
        f"{OURS}, bands and estimate": similar,
        f"{OURS}, bands": proposed,
    }


def _within(members: list[int]) -> Found:
    """All pairs of a group, whose members ascend."""
    return {(one, other) for place, other in enumerate(members) for one in members[:place]}


def _rensa(sets: list[list[bytes]]) -> dict[str, Found | str]:
    missing = not_installed("rensa", "rensa")
    if missing:
        return {"rensa, bands": missing, "rensa, bands and estimate": missing}
    import rensa

    rows, bands = rows_per_band(THRESHOLD), bands_at(THRESHOLD)
    sketches: Any = rensa.RMinHash.from_token_sets(sets, num_perm=bands * rows, seed=SEED)
    index = rensa.RMinHashLSH(threshold=THRESHOLD, num_perm=bands * rows, num_bands=bands)
    index.insert_many(sketches)
    proposed = _pairs_of(index.query_all(sketches))
    similar = {(i, j) for i, j in proposed if sketches[i].jaccard(sketches[j]) >= THRESHOLD}
    return {"rensa, bands": proposed, "rensa, bands and estimate": similar}


def _datasketch(sets: list[list[bytes]]) -> dict[str, Found | str]:
    missing = not_installed("datasketch", "datasketch")
    if missing:
        return {"datasketch, bands": missing, "datasketch, bands and estimate": missing}
    import datasketch

    sketches = []
    index = datasketch.MinHashLSH(num_perm=SLOTS, params=(bands_at(THRESHOLD), rows_per_band(THRESHOLD)))
    for number, shingles in enumerate(sets):
        sketch = datasketch.MinHash(num_perm=SLOTS, seed=SEED)
        sketch.update_batch(shingles)
        index.insert(number, sketch)
        sketches.append(sketch)
    proposed = _pairs_of([index.query(sketch) for sketch in sketches])
    similar = {(i, j) for i, j in proposed if sketches[i].jaccard(sketches[j]) >= THRESHOLD}
    return {"datasketch, bands": proposed, "datasketch, bands and estimate": similar}


def _pairs_of(answers: list[list[int]]) -> Found:
    """Pairs out of each document's list of others."""
    return {
        (min(i, int(j)), max(i, int(j))) for i, others in enumerate(answers) for j in others if i != int(j)
    }
