"""Joins indexed datasets into one.

    python tools/merge_datasets.py OUTPUT PREFIX...
    python tools/merge_datasets.py merged/corpus shards/shard-*/documents.json --verify

OUTPUT and PREFIX are paths without .bin, .idx or .json. See --help.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs from a clone that is not installed

from megasbp.command import run_command
from megasbp.data.indexed_dataset import IndexedDataset, without_suffix
from megasbp.data.merge import merge_datasets

EXPLANATION = """\
The documents of all datasets, in the order given, become one dataset, byte for byte as if it had been written
at once. All must have one dtype, tokenizer, bos, eos and sep. Memory stays small at any size; the disk must
hold the result beside the parts. OUTPUT appears when it is whole: after a stop run the command again, it
starts anew.

--verify reads all parts first and compares them with their hashes.

examples:
  shards of preprocess_corpus  merged/corpus shards/shard-*/documents.json
  two corpora                  both a/corpus b/corpus --verify

exit status: 0 all is well, 2 something is wrong (one line on standard error says what, and the mend)
"""
_SECONDS_BETWEEN_LINES = 2.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command. Returns the exit status."""
    return run_command("merge_datasets", merge, parse(arguments))


def merge(options: argparse.Namespace) -> None:
    """Verifies the parts if asked to, and joins them."""
    prefixes = [without_suffix(prefix) for prefix in options.prefixes]
    # shards/shard-*/documents.* names each dataset three times.
    prefixes = list(dict.fromkeys(prefixes)) if prefixes != options.prefixes else prefixes
    if options.verify:
        for prefix in prefixes:
            IndexedDataset(prefix).verify()
            print(f"verified: {prefix}", flush=True)
    merge_datasets(prefixes, options.output, Progress())
    merged = IndexedDataset(options.output)
    print(
        f"{options.output}: {len(prefixes)} datasets, {len(merged):,} documents, {merged.tokens:,} tokens of "
        f"{merged.dtype.name}"
    )


class Progress:
    """Prints how much is copied, how fast, and how long it will take, every two seconds."""

    def __init__(self) -> None:
        self._started = self._printed = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        """Takes note of bytes copied, of all."""
        now = time.monotonic()
        if now - self._printed < _SECONDS_BETWEEN_LINES:
            return
        self._printed = now
        speed = done / (now - self._started)
        print(
            f"{done / 1e9:,.2f} of {total / 1e9:,.2f} GB of tokens | {speed / 1e6:,.0f} MB/s | "
            f"{(total - done) / max(speed, 1):,.0f} s left, then the hashes",
            flush=True,
        )


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Joins indexed datasets into one.",
        epilog=EXPLANATION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("output", type=Path, help="path of the result, without suffix")
    parser.add_argument("prefixes", type=Path, nargs="+", metavar="PREFIX", help="datasets, in this order")
    parser.add_argument("--verify", action="store_true", help="check every part's hashes first")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
