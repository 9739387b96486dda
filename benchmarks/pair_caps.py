"""The greedy walk under the caps: plain Python beside C++, and what 10^8 candidates take.

    python -m benchmarks.pair_caps [--largest 100000000] [--out benchmarks/results/pair_caps.json]

Each measurement is a process of its own, so that its peak memory is its own. Candidates: `COUNT` pairs of
`COUNT / 20` documents with 20 neighbours each, targets drawn so that some are hubs; caps of 8 and 8.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np

import megasbp._C as core
from benchmarks import report
from benchmarks.measuring import fresh_process, peak_memory
from megasbp.storage import publish_json

NEIGHBOURS = 20
CAP = 8
REPEATS = 3


def main() -> None:
    arguments = parse_arguments()
    if arguments.child is not None:
        print(json.dumps(measure(arguments.child, arguments.count)))
        return
    compared = 1_000_000
    machine = report.machine()
    sides: dict[str, list[dict[str, float]]] = {"plain": [], "native": []}
    for _ in range(REPEATS):
        for side, runs in sides.items():
            runs.append(child(side, compared))
    assert len({run["kept"] for runs in sides.values() for run in runs}) == 1, "the two keep different pairs"
    medians = {side: float(np.median([run["seconds"] for run in runs])) for side, runs in sides.items()}
    result = {
        "what": "greedy caps over candidate pairs: dictionaries in Python beside core.cap_pairs",
        **report.circumstances(["numpy"], machine),
        "candidates_compared": compared,
        "seconds": medians,
        "times_faster": round(medians["plain"] / medians["native"], 1),
        "peak_bytes_above_input": {side: runs[-1]["bytes"] for side, runs in sides.items()},
        "at_scale": {str(count): child("native", count) for count in (10_000_000, arguments.largest)},
    }
    publish_json(arguments.out, result)
    print(json.dumps(result, indent=2))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--largest", type=int, default=100_000_000)
    default = Path(__file__).parent / "results" / "pair_caps.json"
    parser.add_argument("--out", type=Path, default=default)
    parser.add_argument("--child", choices=("plain", "native"), help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def child(side: str, count: int) -> dict[str, float]:
    return fresh_process("benchmarks.pair_caps", "--child", side, "--count", str(count))


def measure(side: str, count: int) -> dict[str, float]:
    """Seconds, pairs kept, and bytes of peak memory above what the candidates themselves take."""
    documents = count // NEIGHBOURS
    generator = np.random.default_rng(0)
    seeds = np.repeat(np.arange(documents), NEIGHBOURS)
    # The square makes hubs: a hundredth of the documents gets a tenth of the pairs.
    targets = (generator.random(len(seeds), dtype=np.float32) ** 2 * documents).astype(np.int64)
    values = generator.random(len(seeds), dtype=np.float32)
    before = peak_memory()
    start = time.perf_counter()
    kept = (native if side == "native" else plain)(seeds, targets, values)
    seconds = time.perf_counter() - start
    return {"seconds": round(seconds, 3), "kept": len(kept), "bytes": peak_memory() - before}


def native(seeds: np.ndarray, targets: np.ndarray, values: np.ndarray) -> np.ndarray:
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


if __name__ == "__main__":
    main()
