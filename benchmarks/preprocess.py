"""How fast a corpus becomes a dataset, beside gigatoken's file mode, tiktoken and Hugging Face tokenizers.

Every value is a fresh process, timed after its imports. gigatoken reads the same file and keeps its tokens in
memory; megasbp reads it, tokenises, compares a sample with Hugging Face and leaves a checked dataset on disk.
tiktoken and Hugging Face get texts that lie in memory already, of the first part of the corpus.

The corpus is repeated up to --megabytes: below a few hundred the start of a worker weighs more than its work.
"""

import argparse
import json
import time
from pathlib import Path

import zstandard

from benchmarks.measuring import OURS, Measure, Side, fresh_process, interleave, not_installed
from benchmarks.texts import DEMO_CORPUS, read_texts
from megasbp.corpus.tokenizer import Tokenizer

PACKAGES = ("megasbp", "gigatoken", "tiktoken", "tokenizers", "zstandard", "numpy")
_GIGATOKEN = "gigatoken, encode_files"
_TIKTOKEN = "tiktoken, encode_ordinary_batch"
_HUGGING_FACE = "Hugging Face, encode_batch"
_WITH_START = f"{OURS}, whole process"
_TRAINING_TEXTS = 2_000


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of this subject."""
    parser.add_argument("--corpus", type=Path, nargs="+", default=[DEMO_CORPUS], metavar="PATH")
    parser.add_argument(
        "--tokenizer", type=Path, help="a tokenizer.json of GPT-2's kind (one is trained on the corpus)"
    )
    parser.add_argument("--vocabulary", type=int, default=16_384, help="of the trained one (%(default)s)")
    parser.add_argument(
        "--megabytes", type=int, default=1000, help="of text, by repeating the corpus (%(default)s)"
    )
    parser.add_argument("--threads", type=int, default=2, help="of every side (%(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="of every side (%(default)s)")


def measure(options: argparse.Namespace, scratch: Path) -> list[Measure]:
    """Every measure of this subject; `scratch` gets the text, compressed, and the dataset."""
    texts = read_texts(options.corpus)
    tokenizer = options.tokenizer
    if tokenizer is None:
        tokenizer = scratch / "tokenizer" / "tokenizer.json"
        tokenizer.parent.mkdir()
        Tokenizer.train(iter(texts[:_TRAINING_TEXTS]), options.vocabulary).save(tokenizer)
    corpus = scratch / "corpus.jsonl.zst"
    size = _write_corpus(corpus, texts, options.megabytes * 1_000_000)
    missing = not_installed("gigatoken", "gigatoken")
    sides = {
        OURS: Side(
            note=f"{options.threads} threads, to a checked dataset on disk, hashes included"
            + ("; Hugging Face encodes, for gigatoken is missing" if missing else "")
        ),
        _WITH_START: Side(note="the same runs, with interpreter and imports"),
        _GIGATOKEN: Side(note="the same file, tokens stay in memory", missing=missing),
        _TIKTOKEN: Side(note="texts in memory", missing=not_installed("tiktoken", "tiktoken")),
        _HUGGING_FACE: Side(note="texts in memory"),
    }

    def run(name: str, job: str) -> float:
        started = time.perf_counter()
        environment = {"RAYON_NUM_THREADS": str(options.threads), "OMP_NUM_THREADS": str(options.threads)}
        arguments = (job, str(corpus), str(tokenizer), str(options.threads), str(scratch))
        result = fresh_process("benchmarks.preprocess_processes", *arguments, environment=environment)
        if name == OURS:
            sides[_WITH_START].values.append(size / (time.perf_counter() - started))
        sides[name].facts = {fact: result[fact] for fact in ("documents", "tokens", "bytes")}
        return result["bytes"] / result["seconds"]

    jobs = {OURS: "ours", _GIGATOKEN: "gigatoken", _TIKTOKEN: "tiktoken", _HUGGING_FACE: "hugging_face"}
    runs = {
        name: (lambda name=name, job=job: run(name, job))
        for name, job in jobs.items()
        if not sides[name].missing
    }
    for name, values in interleave(runs, options.repeats, warm_up=0).items():
        sides[name].values = values
    if sides[_GIGATOKEN].values:
        assert sides[OURS].facts == sides[_GIGATOKEN].facts, "another number of tokens than gigatoken's"
    title = f"JSONL.zst to dataset, {size / 1e6:,.0f} MB of text"
    return [Measure(title, "bytes/s", True, sides, {_GIGATOKEN: 0.8, _TIKTOKEN: 5.0})]


def _write_corpus(path: Path, texts: list[str], size: int) -> int:
    """The texts in one compressed file, repeated up to `size` bytes of text. Returns how many it has."""
    lines = [json.dumps({"text": text}, ensure_ascii=False).encode() + b"\n" for text in texts]
    sizes = [len(text.encode()) for text in texts]
    written = 0
    with open(path, "wb") as file, zstandard.ZstdCompressor(threads=-1).stream_writer(file) as stream:
        while written < size:
            stream.write(b"".join(lines))
            written += sum(sizes)
    return written
