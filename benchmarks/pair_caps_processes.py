"""One walk under the caps, in a process of its own for its peak memory.

    python -m benchmarks.pair_caps_processes native|plain CANDIDATES

prints one JSON object.
"""

import json
import sys
import time

import numpy as np

import megasbp._C as core
from benchmarks.measuring import peak_memory

NEIGHBOURS = 20
CAP = 8


def native(seeds: np.ndarray, targets: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Kept places by the C++ core."""
    return core.cap_pairs(seeds, targets, CAP, CAP, values)[0]


def plain(seeds: np.ndarray, targets: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Sort, walk with dictionaries, sort what is kept."""
    order = np.lexsort((targets, seeds, -values))
    of_seed: dict[int, int] = {}
    of_target: dict[int, int] = {}
    kept = []
    for position, seed, target in zip(
        order.tolist(), seeds[order].tolist(), targets[order].tolist(), strict=True
    ):
        if of_seed.get(seed, 0) < CAP and of_target.get(target, 0) < CAP:
            of_seed[seed] = of_seed.get(seed, 0) + 1
            of_target[target] = of_target.get(target, 0) + 1
            kept.append(position)
    positions = np.array(kept, dtype=np.int64)
    return positions[np.lexsort((targets[positions], seeds[positions]))]


def measure(side: str, candidates: int) -> dict[str, float]:
    """Seconds, pairs kept, and bytes of peak memory above what the candidates themselves take."""
    documents = max(1, candidates // NEIGHBOURS)
    generator = np.random.default_rng(0)
    seeds = np.repeat(np.arange(documents), NEIGHBOURS)
    # The square makes hubs: a hundredth of the documents gets a tenth of the pairs.
    targets = (generator.random(len(seeds), dtype=np.float32) ** 2 * documents).astype(np.int64)
    values = generator.random(len(seeds), dtype=np.float32)
    before = peak_memory()
    start = time.perf_counter()
    kept = {"native": native, "plain": plain}[side](seeds, targets, values)
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "kept": len(kept), "bytes": peak_memory() - before}


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], int(sys.argv[2]))))
