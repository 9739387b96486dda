"""One neighbour search, in a process of its own for its threads and its peak memory.

    python -m benchmarks.search_processes flat|ivf|partitioned VECTORS.npy RECALL THREADS

writes the rows found beside the vectors and prints one JSON object.
"""

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch

from benchmarks.search import exact_similarities
from megasbp.pairing.config import SearchConfig
from megasbp.pairing.neighbours import find_neighbours
from megasbp.pairing.recall import tie_aware_recall
from megasbp.pairing.vectors import Vectors

NEIGHBOURS = 10
_IVF_PROBES = (8, 16, 32)
# Rows, seconds, facts.
Found = tuple[np.ndarray, float, dict[str, Any]]


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
    def bytes(self) -> int:
        """What was added at the peak."""
        return (self._peak - self._before) * 1024

    def _watch(self) -> None:
        while not self._stop.wait(0.005):
            self._peak = max(self._peak, self._anonymous())

    @staticmethod
    def _anonymous() -> int:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(status.partition("RssAnon:")[2].split()[0])


def flat(path: Path, recall: float) -> Found:
    """All rows with all, by faiss."""
    vectors = np.load(path)
    start = time.perf_counter()
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    _, row = index.search(vectors, NEIGHBOURS + 1)
    return without_own(row), time.perf_counter() - start, {}


def ivf(path: Path, recall: float) -> Found:
    """The fewest of `_IVF_PROBES` that reach the recall; building the index is counted, trying is not."""
    vectors = np.load(path)
    truth = exact_similarities(vectors, np.load(path.with_suffix(".flat.npy")))
    lists = 2 ** round(np.log2(2 * np.sqrt(len(vectors))))
    start = time.perf_counter()
    index = faiss.index_factory(vectors.shape[1], f"IVF{lists},Flat", faiss.METRIC_INNER_PRODUCT)
    index.train(np.random.default_rng(0).choice(vectors, min(len(vectors), lists * 64), replace=False))
    index.add(vectors)
    built = time.perf_counter() - start
    for probes in _IVF_PROBES:
        index.nprobe = probes
        start = time.perf_counter()
        _, row = index.search(vectors, NEIGHBOURS + 1)
        searched = time.perf_counter() - start
        row = without_own(row)
        if tie_aware_recall(exact_similarities(vectors, row), truth).mean() >= recall:
            break
    return row, built + searched, {"lists": lists, "probes": probes}


def partitioned(path: Path, recall: float) -> Found:
    """megasbp's search by partitions."""
    start = time.perf_counter()
    vectors = Vectors([path])
    found = find_neighbours(
        vectors,
        vectors,
        NEIGHBOURS,
        SearchConfig(engine="partitioned", recall=recall),
        exclude_same_row=True,
        announce=lambda line: print(line, file=sys.stderr),
    )
    seconds = time.perf_counter() - start
    return found.row, seconds, {name: found.facts[name] for name in ("partitions", "store", "probe", "pairs")}


def without_own(row: np.ndarray) -> np.ndarray:
    """The first k found rows that are not the query itself."""
    other = row != np.arange(len(row))[:, None]
    order = np.argsort(~other, axis=1, kind="stable")[:, :NEIGHBOURS]
    return np.take_along_axis(np.where(other, row, -1), order, axis=1)


def main() -> None:
    """Runs one side."""
    side, path, recall, threads = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
    torch.set_num_threads(threads)
    faiss.omp_set_num_threads(threads)
    with MemoryPeak() as memory:
        row, seconds, facts = {"flat": flat, "ivf": ivf, "partitioned": partitioned}[side](path, recall)
    np.save(path.with_suffix(f".{side}.npy"), row)
    print(json.dumps({"seconds": seconds, "bytes": memory.bytes, "facts": facts}))


if __name__ == "__main__":
    main()
