"""Shows what an indexed dataset holds, and checks it.

    python tools/inspect_dataset.py PREFIX
    python tools/inspect_dataset.py PREFIX --tokenizer tokenizer.json --documents 0 17 -1
    python tools/inspect_dataset.py PREFIX --verify --tokenizer tokenizer.json
    python tools/inspect_dataset.py PREFIX --describe --tokenizer tokenizer.json --source "where it is from"

PREFIX is the dataset's path without .bin, .idx or .json.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs from a clone that is not installed

from megasbp.command import run_command
from megasbp.corpus.tokenizer import Tokenizer
from megasbp.data.indexed_dataset import IndexedDataset, dataset_files, describe_dataset
from megasbp.data.merge import Index
from megasbp.errors import InputError

EXPLANATION = """\
An indexed dataset is three files. NAME.bin holds the tokens of all documents one after another; NAME.idx
holds each document's length and place (Megatron-LM's MMIDIDX version 1); NAME.json, written last, holds
counts, SHA-256 of both, the tokenizer's hash and the source. Opening is instant at any size; only --verify
and --describe read everything.

With --tokenizer, documents are shown as text and the dataset must have been written with that tokenizer.
Special tokens have no text: <bos>, <eos> and <sep> stand for them here.

examples:
  what is in it                PREFIX
  read two documents           PREFIX --tokenizer tokenizer.json --documents 0 -1
  is the copy intact           PREFIX --verify
  take over Megatron's files   PREFIX --describe --tokenizer tokenizer.json

exit status: 0 all is well, 2 something is wrong (one line on standard error says what, and the mend)
"""
BAR = 40
AT_ONCE = 1 << 22


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command. Returns the exit status."""
    return run_command("inspect_dataset", inspect, parse(arguments))


def inspect(options: argparse.Namespace) -> None:
    """Prints what is asked for; describes and verifies before."""
    roles = {"bos": options.bos, "eos": options.eos, "sep": options.sep}
    tokenizer = None if options.tokenizer is None else Tokenizer.load(options.tokenizer, **roles)
    if options.describe:
        describe(options.prefix, tokenizer, options.source)
    dataset = IndexedDataset(options.prefix)
    require_tokenizer(dataset, tokenizer)
    print("\n".join(summary(dataset)))
    if options.verify:
        dataset.verify(None if tokenizer is None else tokenizer.vocabulary_size)
        checked = "hashes and index" if tokenizer is None else "hashes, index and every token"
        print(f"\nverified: {checked} are as they should be")
    for document in options.documents:
        print("\n".join(shown_document(dataset, document, tokenizer, options.characters)))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Shows what an indexed dataset holds, and checks it.",
        epilog=EXPLANATION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("prefix", type=Path, help="path without .bin, .idx or .json")
    parser.add_argument(
        "--tokenizer", type=Path, help="the tokenizer.json that the dataset was written with, or its folder"
    )
    for role in ("bos", "eos", "sep"):
        parser.add_argument(
            f"--{role}", metavar="TOKEN", help=f"name of the {role} token, where it is not found"
        )
    parser.add_argument(
        "--documents",
        type=int,
        nargs="+",
        default=[],
        metavar="N",
        help="documents to show, counted from 0; negative numbers count from the end",
    )
    parser.add_argument(
        "--characters",
        type=int,
        default=2000,
        help="show at most this much of a document (default: %(default)s)",
    )
    parser.add_argument(
        "--verify",
        action="store_true",
        help="read everything: hashes, index entries and, with --tokenizer, each token's range",
    )
    parser.add_argument(
        "--describe",
        action="store_true",
        help="first write NAME.json for .bin/.idx of another tool; documents must be stored as bos, "
        "document, eos",
    )
    parser.add_argument(
        "--source", default="", help="with --describe: where the data are from, and their licence"
    )
    options = parser.parse_args(arguments)
    if options.describe and options.tokenizer is None:
        parser.error("--describe needs --tokenizer: training checks that data and model use the same one")
    return options


def describe(prefix: Path, tokenizer: Tokenizer | None, source: str) -> None:
    """Writes NAME.json for foreign files; an existing one is never overwritten."""
    assert tokenizer is not None
    path = dataset_files(prefix)[2]
    if path.exists():
        raise InputError(f"{path}: exists; leave out --describe, or remove it to have it made again")
    special = {"bos": tokenizer.bos, "eos": tokenizer.eos, "sep": tokenizer.sep}
    describe_dataset(prefix, {"tokenizer": tokenizer.hash, **special, "source": {"name": source}})


def require_tokenizer(dataset: IndexedDataset, tokenizer: Tokenizer | None) -> None:
    """Refuses to decode with another tokenizer than the dataset's."""
    written_with = str(dataset.metadata.get("tokenizer"))
    if tokenizer is not None and tokenizer.hash != written_with:
        raise InputError(
            f"{dataset.prefix}: written with tokenizer {written_with[:12]}, the given one is "
            f"{tokenizer.hash[:12]}; give the tokenizer.json that lies with the dataset"
        )


def summary(dataset: IndexedDataset) -> Iterator[str]:
    """Counts, files, metadata and the histogram of lengths."""
    yield str(dataset.prefix)
    yield f"  documents    {len(dataset):,}"
    yield f"  tokens       {dataset.tokens:,} of {dataset.dtype.name}"
    index = Index.read(dataset_files(dataset.prefix)[1])
    yield (
        f"  header       MMIDIDX version 1, dtype code {index.code}, {index.sequences:,} sequences, "
        f"{index.bounds:,} document bounds"
    )
    for path in dataset_files(dataset.prefix):
        yield f"  {path.suffix:<11}  {path.stat().st_size:,} bytes"
    yield f"  fingerprint  {dataset.fingerprint}"
    for name, value in sorted(dataset.metadata.items()):
        shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        yield f"  {name:<11}  {shown}"
    yield ""
    yield from histogram(dataset.lengths)


def histogram(lengths: np.ndarray) -> Iterator[str]:
    """Documents and tokens by length, in powers of two; read block by block, since there may be billions."""
    if not len(lengths):
        yield "no documents"
        return
    documents = np.zeros(32, dtype=np.int64)
    tokens = np.zeros(32, dtype=np.int64)
    for start in range(0, len(lengths), AT_ONCE):
        block = lengths[start : start + AT_ONCE].astype(np.int64)
        # frexp's exponent is the number of bits: 0 for 0, 1 for 1, 2 for 2 and 3, 3 for 4 to 7, ...
        bits_of_each = np.frexp(block.astype(np.float64))[1]
        documents += np.bincount(bits_of_each, minlength=32)
        np.add.at(tokens, bits_of_each, block)
    mean = tokens.sum() / documents.sum()
    yield f"tokens per document: {lengths.min():,} to {lengths.max():,}, mean {mean:,.1f}"
    yield f"  {'length':>23}  {'documents':>13}  share of documents, and of tokens"
    used = np.flatnonzero(documents)
    for bits in range(used[0], used[-1] + 1):
        first, last = (0, 0) if bits == 0 else (1 << (bits - 1), (1 << bits) - 1)
        span = f"{first:,}" if first == last else f"{first:,} to {last:,}"
        share = documents[bits] / documents.sum()
        token_share = tokens[bits] / max(1, tokens.sum())
        bar = "#" * round(BAR * share)
        yield f"  {span:>23}  {documents[bits]:>13,}  {share:6.1%} {token_share:6.1%}  {bar}".rstrip()


def shown_document(
    dataset: IndexedDataset, document: int, tokenizer: Tokenizer | None, characters: int
) -> Iterator[str]:
    """A heading and the document, as text with a tokenizer, as numbers without."""
    number = document + len(dataset) if document < 0 else document
    if not 0 <= number < len(dataset):
        raise InputError(
            f"{dataset.prefix}: no document {document}, there are {len(dataset):,}; count from 0"
        )
    tokens = dataset.document(number)
    text = " ".join(map(str, tokens.tolist())) if tokenizer is None else decoded(tokens, tokenizer)
    yield f"\ndocument {number:,}, {len(tokens):,} tokens"
    hidden = len(text) - characters
    yield text if hidden <= 0 else f"{text[:characters]} [... {hidden:,} more characters]"


def decoded(tokens: np.ndarray, tokenizer: Tokenizer) -> str:
    """Text with marks where special tokens are."""
    marks = {tokenizer.sep: "<sep>", tokenizer.eos: "<eos>", tokenizer.bos: "<bos>"}
    special = np.flatnonzero(np.isin(tokens, list(marks)))
    parts, end = [], 0
    for place in special.tolist():
        parts += [tokenizer.decode(tokens[end:place]), marks[int(tokens[place])]]
        end = place + 1
    return "".join([*parts, tokenizer.decode(tokens[end:])])


if __name__ == "__main__":
    sys.exit(main())
