"""The most that the ranks of a pipeline hold in a step, left for test_estimate.py.

Usage: python pipeline_memory_cases.py FOLDER
"""

import json
import sys
from pathlib import Path

from estimate_cases import PEAKS_OF_PIPELINES, RANKS, peaks
from launch import fork_ranks

from megasbp.parallel.runtime import Runtime


def main(folder: Path) -> None:
    started = Runtime.start()
    (folder / f"facts-{started.rank}.json").write_text(json.dumps(peaks(started, PEAKS_OF_PIPELINES)))
    started.close()


if __name__ == "__main__":
    fork_ranks(main, RANKS, Path(sys.argv[1]))
