"""Finds the near-duplicates of a tokenised corpus, in parallel; a run that was stopped goes on where it was.

    python tools/find_duplicates.py OUTPUT DATASET...
    python tools/find_duplicates.py duplicates corpus/ --threshold 0.8 --workers 16

See --help.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs from a clone that is not installed

from megasbp.command import run_command
from megasbp.data.indexed_dataset import without_suffix
from megasbp.data.preprocessed import PreprocessedCorpus
from megasbp.overlap.corpus_clusters import (
    cluster_corpus,
    disk_needed,
    largest_clusters,
    load_clusters,
    remove_steps,
)
from megasbp.overlap.dataset_shards import DatasetShards
from megasbp.shards.options import add_shards_options, chosen_shards
from megasbp.storage import publish_json, require_free_space

EXPLANATION = """\
DATASETs are indexed datasets, with or without .bin, .idx or .json, or the output folder of
tools/preprocess_corpus.py, whose shards are taken in order. Documents are numbered on from one dataset to the
next; a dataset that is named twice counts once.

OUTPUT gets clusters/clusters.npy: int64, a label for each document, the smallest document of its cluster; and
summary.json: counts, and the largest clusters with the place of their first document. Documents are of one
cluster when a chain of pairs joins them, each with a Jaccard similarity of at least --threshold between their
sets of runs of --width tokens. Every pair is compared exactly before it is joined; one right at the threshold
is found with a probability of 0.98, a more similar one with a higher.

The same datasets and settings give the same bytes on any engine with any number of workers. Run the same
command again after a stop: what is finished is kept. Until the end the disk must hold some 330 bytes a
document (at 0.7) beside the datasets; the last steps take 16 bytes of memory a document, a worker about
--memory.

examples:
  a preprocessed corpus        python tools/find_duplicates.py duplicates corpus/
  some datasets, stricter      python tools/find_duplicates.py duplicates a b --threshold 0.9
  a document of each cluster   labels = numpy.load("duplicates/clusters/clusters.npy", mmap_mode="r")
                               kept = numpy.flatnonzero(labels == numpy.arange(len(labels)))
  look at one                  python tools/inspect_dataset.py corpus/shard-000000/documents --documents 17
                               --tokenizer corpus/tokenizer.json

exit status: 0 all is well, 2 something is wrong (one line on standard error says what, and the mend),
1 a worker failed or died again and again
"""
_LARGEST = 20


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command. Returns the exit status."""
    return run_command("find_duplicates", find_duplicates, parse(arguments), "finished shards")


def find_duplicates(options: argparse.Namespace) -> None:
    """Clusters the documents, writes the summary and removes the steps between."""
    shards = chosen_shards(options)
    datasets = named_datasets(options.datasets)
    documents = DatasetShards(datasets)
    if not options.output.exists():
        require_free_space(options.output, disk_needed(len(documents), options.threshold))
    print(f"{len(datasets):,} datasets, {len(documents):,} documents", flush=True)
    facts = cluster_corpus(
        datasets,
        options.output,
        width=options.width,
        threshold=options.threshold,
        seed=options.seed,
        memory=options.memory,
        shards=shards,
    )
    largest = [
        place(label, size, datasets, documents.bounds)
        for label, size in largest_clusters(load_clusters(options.output), _LARGEST)
    ]
    publish_json(options.output / "summary.json", {**facts, "largest": largest})
    remove_steps(options.output)
    share = facts["near_duplicates"] / max(facts["documents"], 1)
    print(
        f"{options.output}: {facts['documents']:,} documents in {facts['clusters']:,} clusters; "
        f"{facts['near_duplicates']:,} ({share:.1%}) repeat another"
    )
    for cluster in largest[:5]:
        print(
            f"  {cluster['documents']:,} documents like document {cluster['document']:,} of "
            f"{cluster['dataset']}"
        )


def named_datasets(paths: Sequence[Path]) -> list[Path]:
    """Paths of the datasets without suffix, those of a preprocessed corpus in its order.

    Raises:
        InputError: a folder that is no finished corpus.
    """
    datasets: dict[Path, None] = {}
    for path in paths:
        found = PreprocessedCorpus.open(path).datasets if path.is_dir() else (without_suffix(path),)
        datasets.update(dict.fromkeys(found))
    return list(datasets)


def place(label: int, size: int, datasets: Sequence[Path], bounds: np.ndarray) -> dict[str, Any]:
    """Where the first document of a cluster lies, and how many there are."""
    number = int(np.searchsorted(bounds, label, side="right")) - 1
    return {
        "label": label,
        "documents": size,
        "dataset": str(datasets[number]),
        "document": label - int(bounds[number]),
    }


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Finds the near-duplicates of a tokenised corpus, in parallel; goes on after a stop.",
        epilog=EXPLANATION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("output", type=Path, help="folder for the clusters; made if missing")
    parser.add_argument(
        "datasets", type=Path, nargs="+", metavar="DATASET", help="datasets, or a preprocessed corpus"
    )
    parser.add_argument(
        "--threshold",
        type=float,
        default=0.7,
        metavar="S",
        help="Jaccard similarity, 0.05 to 1 (0.7, usual where copies are dropped; a recipe, which drops none "
        "but keeps them in one split, has 0.5)",
    )
    parser.add_argument("--width", type=int, default=5, metavar="TOKENS", help="of a shingle (5)")
    parser.add_argument("--seed", type=int, default=0, help="of the hash functions (0)")
    add_shards_options(parser, workers="processes (one per core)")
    parser.add_argument(
        "--memory", type=in_bytes, default="4", metavar="GB", help="of a worker, beside its candidates (4)"
    )
    return parser.parse_args(arguments)


def in_bytes(text: str) -> int:
    """Bytes of a number of GB."""
    number = float(text)
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"{text} is no size; give a number of GB")
    return int(number * 1e9)


if __name__ == "__main__":
    sys.exit(main())
