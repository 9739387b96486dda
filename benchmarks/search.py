"""Neighbour search beside faiss: flat (exact) and an inverted file, at three sizes of one set of vectors.

Vectors: passages of the corpus, TF-IDF reduced to 384 numbers (LSA); and MiniLM's of some of them, for the
recall. They are kept in --cache. Every value is a fresh process with --threads threads. Recall@10 is
tie-aware and over every row: a neighbour counts if its exact similarity reaches that of the tenth true one
(flat faiss', summed again in float64), within 2**-20. Memory is the process's own above what it held before,
mapped files left out.
"""

import argparse
from pathlib import Path

import numpy as np

from benchmarks.measuring import OURS, ROOT, Measure, Side, fresh_process, interleave
from benchmarks.texts import DEMO_CORPUS, read_texts
from benchmarks.vectors import lsa_vectors, minilm_vectors, passages
from megasbp.errors import InputError
from megasbp.pairing.recall import tie_aware_recall
from megasbp.pairing.similarity import similarities

PACKAGES = ("megasbp", "torch", "numpy", "faiss-cpu", "scikit-learn", "sentence-transformers")
_FLAT = "faiss, flat"
_IVF = "faiss, IVF"
# The speed is promised from here on; below it exact search takes seconds.
_TARGET_ROWS = 135_000
_TARGET_RATIO = 10.0


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of this subject."""
    parser.add_argument("--corpus", type=Path, nargs="+", default=[DEMO_CORPUS], metavar="PATH")
    parser.add_argument("--rows", type=int, default=136_000, help="LSA vectors, at most (%(default)s)")
    parser.add_argument(
        "--minilm-rows", type=int, default=10_240, help="MiniLM vectors; 0 for none (%(default)s)"
    )
    parser.add_argument("--recall", type=float, default=0.97, help="that is asked for (%(default)s)")
    parser.add_argument("--ivf", action="store_true", help="faiss' inverted file too; about as slow as flat")
    parser.add_argument("--threads", type=int, default=2, help="of every side (%(default)s)")
    parser.add_argument("--repeats", type=int, default=1, help="of every side (%(default)s)")
    default = ROOT / "corpora" / "benchmark"
    parser.add_argument("--cache", type=Path, default=default, help="for the vectors (corpora/benchmark)")


def measure(options: argparse.Namespace, scratch: Path) -> list[Measure]:
    """Every measure of this subject; `scratch` gets copies of the vectors."""
    texts = passages(read_texts(options.corpus), options.rows)
    if len(texts) < _TARGET_ROWS <= options.rows:
        print(f"search: {len(texts):,} passages; the target of speed is for {_TARGET_ROWS:,} and more")
    vectors = np.load(lsa_vectors(texts, options.cache), mmap_mode="r")
    measures = []
    for share in (4, 2, 1):
        measures += _search("LSA", vectors[: len(vectors) // share], options, scratch)
    if options.minilm_rows:
        try:
            minilm = np.load(minilm_vectors(texts[: options.minilm_rows], options.cache))
        except InputError as error:
            measures.append(Measure("recall@10, MiniLM vectors", "", True, {OURS: Side(missing=str(error))}))
        else:
            measures += _search("MiniLM", minilm, options, scratch)
    return measures


def _search(kind: str, vectors: np.ndarray, options: argparse.Namespace, scratch: Path) -> list[Measure]:
    """Time, recall and memory of one set; flat runs first, because it gives the truth."""
    path = scratch / "vectors.npy"
    np.save(path, vectors)
    sides = {_FLAT: "flat", OURS: "partitioned", **({_IVF: "ivf"} if options.ivf else {})}
    seconds = {name: Side() for name in sides}
    memory = {name: Side() for name in sides}

    def run(name: str) -> float:
        arguments = (sides[name], str(path), str(options.recall), str(options.threads))
        result = fresh_process("benchmarks.search_processes", *arguments)
        memory[name].values.append(result["bytes"])
        seconds[name].facts = result["facts"]
        return result["seconds"]

    runs = {name: (lambda name=name: run(name)) for name in sides}
    for name, values in interleave(runs, options.repeats, warm_up=0).items():
        seconds[name].values = values
    seconds[
        OURS
    ].note = "k-means, choice of the setting and check of its recall included; temporary files, not hashed"
    found = {name: np.load(path.with_suffix(f".{side}.npy")) for name, side in sides.items()}
    truth = exact_similarities(vectors, found[_FLAT])
    recall = {
        name: Side([float(tie_aware_recall(exact_similarities(vectors, row), truth).mean())])
        for name, row in found.items()
    }
    title = f"{len(vectors):,} {kind} vectors of {vectors.shape[1]}"
    ratios = {_FLAT: _TARGET_RATIO} if len(vectors) >= _TARGET_ROWS else {}
    return [
        Measure(f"neighbours of {title}", "s", False, seconds, ratios),
        Measure(f"recall@10, {title}", "", True, recall, target_limit=options.recall),
        Measure(f"peak memory, {title}", "bytes", False, memory),
    ]


def exact_similarities(vectors: np.ndarray, row: np.ndarray) -> np.ndarray:
    """float64 [n, k], falling; -inf where `row` is -1."""
    found = np.full(row.shape, -np.inf)
    real = row >= 0
    found[real] = similarities(vectors, vectors, np.nonzero(real)[0], row[real])
    return -np.sort(-found, axis=1)
