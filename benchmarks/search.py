"""Neighbour search beside faiss: flat (exact) and an inverted file, at three sizes of one set of vectors.

    python -m benchmarks.search --vectors lsa.npy [--also minilm.npy] [--repeats 3] [--output search.json]

Each measurement is a process of its own, so that its peak memory is its own; the sides take turns, the time
is the median. Recall@10 is tie-aware and over every row: a neighbour counts if its exact similarity reaches
that of the tenth true one (flat faiss', summed again in float64), within 2**-20.
"""

import argparse
import json
import statistics
import sys
import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch

from benchmarks import report
from benchmarks.measuring import fresh_process
from megasbp.pairing.config import SearchConfig
from megasbp.pairing.neighbours import find_neighbours
from megasbp.pairing.recall import tie_aware_recall
from megasbp.pairing.similarity import similarities
from megasbp.pairing.vectors import Vectors
from megasbp.storage import publish_json

NEIGHBOURS = 10
THREADS = 2
PACKAGES = ("torch", "numpy", "faiss-cpu")
IVF_PROBES = (8, 16, 32)


class Clock:
    """Seconds on the wall, and of all threads together: what counts where other work shares the cores."""

    def __init__(self) -> None:
        self._started = time.perf_counter(), time.process_time()

    def read(self) -> dict[str, float]:
        wall, processor = self._started
        return {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - processor}


class MemoryPeak:
    """Peak of the process's own memory above what it was, without mapped files, looked at every 5 ms.

    The kernel's own peaks will not do: ru_maxrss is inherited from the parent, and VmHWM counts mapped files.
    """

    def __enter__(self) -> "MemoryPeak":
        self._before = self._peak = self._anonymous()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def megabytes(self) -> float:
        return (self._peak - self._before) / 1024

    def _watch(self) -> None:
        while not self._stop.wait(0.005):
            self._peak = max(self._peak, self._anonymous())

    @staticmethod
    def _anonymous() -> int:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(status.partition("RssAnon:")[2].split()[0])


def measure_flat(path: Path, recall: float) -> tuple[np.ndarray, dict[str, Any]]:
    vectors = np.load(path)
    clock = Clock()
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    _, row = index.search(vectors, NEIGHBOURS + 1)
    return without_own(row), clock.read()


def measure_ivf(path: Path, recall: float) -> tuple[np.ndarray, dict[str, Any]]:
    """The fewest of `IVF_PROBES` that reach the recall; building the index is counted, trying is not."""
    vectors = np.load(path)
    truth = np.load(path.with_suffix(".flat.npy"))
    lists = 2 ** round(np.log2(2 * np.sqrt(len(vectors))))
    clock = Clock()
    index = faiss.index_factory(vectors.shape[1], f"IVF{lists},Flat", faiss.METRIC_INNER_PRODUCT)
    index.train(np.random.default_rng(0).choice(vectors, min(len(vectors), lists * 64), replace=False))
    index.add(vectors)
    built = clock.read()
    for probes in IVF_PROBES:
        index.nprobe = probes
        clock = Clock()
        _, row = index.search(vectors, NEIGHBOURS + 1)
        searched = clock.read()
        row = without_own(row)
        if full_recall(vectors, row, truth) >= recall:
            break
    return row, {**{name: built[name] + searched[name] for name in built}, "lists": lists, "probes": probes}


def measure_partitioned(path: Path, recall: float) -> tuple[np.ndarray, dict[str, Any]]:
    vectors = Vectors([path])
    clock = Clock()
    found = find_neighbours(
        vectors,
        vectors,
        NEIGHBOURS,
        SearchConfig(engine="partitioned", recall=recall),
        exclude_same_row=True,
        announce=lambda line: print(line, file=sys.stderr),
    )
    return found.row, {**clock.read(), "setting": found.facts}


SIDES = {"flat": measure_flat, "ivf": measure_ivf, "partitioned": measure_partitioned}


def without_own(row: np.ndarray) -> np.ndarray:
    """The first k found rows that are not the query itself."""
    other = row != np.arange(len(row))[:, None]
    order = np.argsort(~other, axis=1, kind="stable")[:, :NEIGHBOURS]
    return np.take_along_axis(np.where(other, row, -1), order, axis=1)


def exact_similarities(vectors: np.ndarray, row: np.ndarray) -> np.ndarray:
    found = np.full(row.shape, -np.inf)
    real = row >= 0
    found[real] = similarities(vectors, vectors, np.nonzero(real)[0], row[real])
    return -np.sort(-found, axis=1)


def full_recall(vectors: np.ndarray, row: np.ndarray, truth: np.ndarray) -> float:
    return float(
        tie_aware_recall(exact_similarities(vectors, row), exact_similarities(vectors, truth)).mean()
    )


def child(side: str, path: Path, recall: float) -> None:
    torch.set_num_threads(THREADS)
    faiss.omp_set_num_threads(THREADS)
    with MemoryPeak() as memory:
        row, result = SIDES[side](path, recall)
    result["peak_megabytes"] = memory.megabytes
    np.save(path.with_suffix(f".{side}.npy"), row)
    print(json.dumps(result))


def measure(path: Path, recall: float, repeats: int, sides: list[str]) -> dict[str, Any]:
    """The sides on one file, taking turns; flat first, because it gives the truth."""
    results: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for _ in range(repeats):
        for side in sides:
            arguments = ("--child", side, "--vectors", str(path), "--recall", str(recall))
            results[side].append(fresh_process("benchmarks.search", *arguments))
            print(f"  {side:<12}{results[side][-1]['seconds']:8.2f} s", flush=True)
    vectors = np.load(path)
    truth = np.load(path.with_suffix(".flat.npy"))
    summary: dict[str, Any] = {"rows": len(vectors), "width": vectors.shape[1], "repeats": repeats}
    for side, runs in results.items():
        middle = sorted(runs, key=lambda run: run["seconds"])[len(runs) // 2]
        recall_found = full_recall(vectors, np.load(path.with_suffix(f".{side}.npy")), truth)
        summary[side] = {**middle, "recall": recall_found}
        for clock in ("seconds", "cpu_seconds"):
            every = [run[clock] for run in runs]
            summary[side][clock] = statistics.median(every)
            summary[side][f"every_{clock}"] = every
    for side in sides:
        summary[side]["times_flat"] = summary["flat"]["seconds"] / summary[side]["seconds"]
        summary[side]["times_flat_cpu"] = summary["flat"]["cpu_seconds"] / summary[side]["cpu_seconds"]
    return summary


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--vectors", type=Path, required=True, help="NAME.npy, float32 unit rows")
    parser.add_argument("--also", type=Path, help="other vectors, searched once at their full size")
    parser.add_argument("--recall", type=float, default=0.97)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--without-ivf", action="store_true", help="leave out the inverted file, which is slow"
    )
    parser.add_argument("--output", type=Path, help="results as JSON")
    parser.add_argument("--child", choices=list(SIDES), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child, arguments.vectors, arguments.recall)
        return
    machine = report.machine()
    vectors = np.load(arguments.vectors, mmap_mode="r")
    sets = [(arguments.vectors.stem, vectors[: len(vectors) // share]) for share in (4, 2, 1)]
    if arguments.also:
        sets.append((arguments.also.stem, np.load(arguments.also)))
    sides = [side for side in SIDES if side != "ivf" or not arguments.without_ivf]
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for name, part in sets:
            path = Path(folder) / "vectors.npy"
            np.save(path, part)
            results.append({"vectors": name, **measure(path, arguments.recall, arguments.repeats, sides)})
            show(results[-1])
    if arguments.output:
        document = {
            **report.circumstances(PACKAGES, machine),
            "threads": THREADS,
            "neighbours": NEIGHBOURS,
            "results": results,
        }
        publish_json(arguments.output, document)


def show(result: dict[str, Any]) -> None:
    for side in SIDES:
        if side not in result:
            continue
        found = result[side]
        ratio, cpu_ratio = found["times_flat"], found["times_flat_cpu"]
        print(
            f"{result['vectors']:<10}{result['rows']:>9,} rows  {side:<12}{found['seconds']:8.2f} s "
            f"{ratio:5.1f}x  processor {found['cpu_seconds']:8.2f} s {cpu_ratio:5.1f}x  recall@{NEIGHBOURS} "
            f"{found['recall']:.4f}{found['peak_megabytes']:8.0f} MB"
        )


if __name__ == "__main__":
    main()
