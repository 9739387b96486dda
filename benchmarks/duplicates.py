"""Near-duplicates beside rensa and datasketch: speed of signatures, planted duplicates found, costs.

All sides run in turn on one thread. Speed: ours from the tokens of an indexed dataset to files on disk,
shingles of five tokens. From the same documents' text rensa in the way of its README: words by str.split(),
R-MinHash of them all, one call for all documents; and its rho sketch, which looks at a sample of the words
only. R-MinHash of our shingle hashes, as it would be the library inside our stage. datasketch, words of text,
on a part of the documents.

Finding: paragraphs and edited copies of some of them, see benchmarks/duplicates_finding.py.
"""

import argparse
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import megasbp._C as core
from benchmarks import duplicates_finding
from benchmarks.duplicates_finding import SEED, SLOTS, THRESHOLD, WIDTH, write_dataset
from benchmarks.measuring import OURS, Measure, Side, interleave, not_installed, rate
from benchmarks.texts import DEMO_CORPUS, long_texts, paragraphs, read_texts
from megasbp.corpus.tokenizer import Tokenizer
from megasbp.overlap.shingles import shingle_hashes
from megasbp.overlap.signatures import bands_at, write_signatures

PACKAGES = ("megasbp", "numpy", "rensa", "datasketch")
_RENSA = "rensa, R-MinHash of words"
_DATASKETCH_DOCUMENTS = 500
_VOCABULARY = 16_384


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of this subject."""
    parser.add_argument("--corpus", type=Path, nargs="+", default=[DEMO_CORPUS], metavar="PATH")
    parser.add_argument("--paragraphs", type=int, default=20_000, help="at most (%(default)s)")
    parser.add_argument("--articles", type=int, default=3_000, help="at most (%(default)s)")
    parser.add_argument("--planted", type=int, default=3_000, help="edited copies, at most (%(default)s)")
    parser.add_argument("--random-documents", type=int, default=2_000_000, help="for costs (%(default)s)")
    parser.add_argument("--repeats", type=int, default=7, help="of the speeds (%(default)s)")


def measure(options: argparse.Namespace, scratch: Path) -> list[Measure]:
    """Every measure of this subject."""
    # One thread on every side: the first is read by our stage, the second when rensa is imported.
    os.environ |= {"OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1"}
    texts = read_texts(options.corpus)
    articles = long_texts(texts, 100, options.articles)
    short = paragraphs(texts, 40, options.paragraphs)
    tokenizer = Tokenizer.train(iter(articles[:1000]), _VOCABULARY)
    return [
        _signatures("paragraphs", short, tokenizer, scratch, options.repeats),
        _signatures("articles", articles, tokenizer, scratch, options.repeats),
        *duplicates_finding.measure(short, tokenizer, scratch / "finding", options.planted),
        *_costs(options.random_documents),
    ]


def _signatures(
    kind: str, texts: Sequence[str], tokenizer: Tokenizer, scratch: Path, repeats: int
) -> Measure:
    """Signatures of documents, from what each tool reads."""
    tokens = tokenizer.encode_batch(texts)
    words = sum(len(text.split()) for text in texts) / len(texts)
    prefix = write_dataset(scratch / kind, tokens)
    folder = scratch / f"{kind}-signatures"
    folder.mkdir()
    hashes = [shingle_hashes(document, WIDTH) for document in tokens]
    flat, offsets = np.concatenate(hashes), np.cumsum([0, *map(len, hashes)])

    def ours() -> None:
        write_signatures(0, folder, datasets=[prefix], width=WIDTH, threshold=THRESHOLD, seed=SEED)

    sides = {OURS: Side(note="tokens of a dataset to files")}
    sides[OURS].facts = {"tokens_per_document": sum(map(len, tokens)) / len(tokens)}
    runs = {OURS: rate(len(texts), ours)}
    for name, (side, run) in _rensa(texts, tokens, flat, offsets, scratch / "rensa.rows").items():
        sides[name] = side
        runs[name] = rate(len(texts), run)
    sides[_RENSA].facts = {"words_per_document": words}
    few = texts[:_DATASKETCH_DOCUMENTS]
    sides["datasketch"] = Side(note="words of text", missing=not_installed("datasketch", "datasketch"))
    runs["datasketch"] = rate(len(few), lambda: _datasketch(few))
    runs = {name: run for name, run in runs.items() if not sides[name].missing}
    for name, values in interleave(runs, repeats).items():
        sides[name].values = values
    return Measure(f"signatures of {len(texts):,} {kind}", "documents/s", True, sides, {_RENSA: 1.0})


def _rensa(
    texts: Sequence[str], tokens: Sequence[np.ndarray], flat: np.ndarray, offsets: np.ndarray, file: Path
) -> dict[str, tuple[Side, Callable[[], Any]]]:
    """rensa's ways to a signature; `flat` and `offsets` are all documents' shingle hashes."""

    def words() -> None:
        sets = [text.split() for text in texts]
        rensa.RMinHash.digest_matrix_from_token_sets(sets, num_perm=SLOTS, seed=SEED)

    def rho() -> None:
        sets = [text.split() for text in texts]
        rensa.RMinHash.digest_matrix_from_token_sets_rho(sets, num_perm=SLOTS, seed=SEED)

    def ready() -> None:
        rensa.RMinHash.digest_matrix_from_flat_token_hashes(flat, offsets, num_perm=SLOTS, seed=SEED)

    def from_tokens() -> None:
        shingles = np.concatenate([shingle_hashes(document, WIDTH) for document in tokens])
        matrix = rensa.RMinHash.digest_matrix_from_flat_token_hashes(shingles, offsets, SLOTS, SEED)
        # The only way out of the matrix.
        np.array(matrix.to_rows(), np.uint32).tofile(file)

    missing = not_installed("rensa", "rensa")
    if not missing:
        import rensa
    return {
        _RENSA: (Side(note="text.split(), one call for all", missing=missing), words),
        "rensa, rho of words": (Side(note="the same; looks at a sample of the words", missing=missing), rho),
        "rensa, R-MinHash of ready hashes": (Side(note="of our shingles", missing=missing), ready),
        "rensa, R-MinHash of tokens": (Side(note="our shingles, to a file", missing=missing), from_tokens),
    }


def _datasketch(texts: Sequence[str]) -> None:
    import datasketch

    for text in texts:
        words = [word.encode() for word in text.split()]
        datasketch.MinHash(num_perm=SLOTS, seed=SEED).update_batch(words)


def _costs(documents: int) -> list[Measure]:
    """What a document costs the stages behind the signatures, on random keys and pairs."""
    generator = np.random.default_rng(SEED)
    keys = generator.integers(0, 2**63, documents, dtype=np.uint64)
    slots = np.zeros((documents, SLOTS), np.uint8)
    pairs = np.sort(generator.integers(0, documents, (documents // 2, 2)), axis=1)

    def band() -> None:
        groups = core.BandGroups(0, 1, documents)
        groups.add(keys, 0)
        groups.candidates([slots], [0, documents], False, 1, SLOTS)

    def union() -> None:
        sets = core.UnionFind(documents)
        sets.join(pairs)
        sets.take_labels()

    def each(run: Callable[[], None]) -> Callable[[], float]:
        def seconds() -> float:
            start = time.perf_counter()
            run()
            return (time.perf_counter() - start) / documents

        return seconds

    values = interleave({"band": each(band), "union": each(union)}, repeats=3)
    size = 8 * bands_at(THRESHOLD) + SLOTS
    note = {"band": f"of {bands_at(THRESHOLD)}; {size} bytes on disk for all", "union": "8 bytes of memory"}
    title = {"band": "one band", "union": "union, a pair for every second document"}
    return [
        Measure(
            f"{title[name]}, per document", "s", False, {OURS: Side(values=values[name], note=note[name])}
        )
        for name in values
    ]
