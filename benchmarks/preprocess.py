"""How fast a corpus becomes a dataset, beside gigatoken's file mode, tiktoken and Hugging Face tokenizers.

    python -m benchmarks.preprocess CORPUS.jsonl.zst --tokenizer tokenizer.json

Every measurement is a fresh process with the given number of threads; the sides take turns, medians are
printed. "With start" is the whole process, "work" begins after the imports. gigatoken reads the same file and
keeps its tokens in memory; ours reads it, tokenises, compares a sample with Hugging Face and leaves a checked
dataset on disk. tiktoken and Hugging Face get texts that lie in memory already, of the first part of the
corpus.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.measuring import ROOT, fresh_process
from megasbp.storage import publish_json

sys.path.insert(0, str(ROOT / "tools"))

_GPT2_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
TARGETS = {"of gigatoken's file mode": 0.8, "times tiktoken": 5.0}
PACKAGES = ("gigatoken", "tiktoken", "tokenizers", "zstandard", "numpy")


def main() -> None:
    """Parent: runs the children in turn and reports. Child: one measurement."""
    options = parse()
    threads = str(options.threads)
    os.environ |= {"RAYON_NUM_THREADS": threads, "OMP_NUM_THREADS": threads}
    if options.child:
        print(json.dumps(CHILDREN[options.child](options)))
        return
    machine = report.machine()
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in CHILDREN}
    for number in range(options.rounds):
        for name, results in rounds.items():
            started = time.perf_counter()
            result = fresh_process("benchmarks.preprocess", *sys.argv[1:], "--child", name)
            results.append({**result, "whole": time.perf_counter() - started})
            print(f"round {number + 1}: {name}: {speed(result, 'work'):.1f} MB/s", flush=True)
    publish(rounds, options, machine)


def gigatoken_files(options: argparse.Namespace) -> dict[str, float]:
    """gigatoken's file mode."""
    import gigatoken

    from megasbp.corpus.tokenizer import Tokenizer

    content = Tokenizer.load(options.tokenizer).json_without_special_tokens()
    started, used = time.perf_counter(), time.process_time()
    inner = gigatoken.Tokenizer.from_json(content)
    encoded = inner.encode_files(gigatoken.JsonlFileSource([options.corpus]), parallel=True)
    seconds, processor = time.perf_counter() - started, time.process_time() - used
    return {
        "work": seconds,
        "processor": processor,
        "bytes": text_bytes(options),
        "tokens": int(encoded.layout.offsets.data[-1]),
        "documents": len(encoded),
    }


def ours(options: argparse.Namespace) -> dict[str, float]:
    """tools/preprocess_corpus.py, start-up check, sample and hashes included."""
    import preprocess_corpus

    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        started, used = time.perf_counter(), processor_time()
        status = preprocess_corpus.main(
            [
                f"{folder}/out",
                str(options.corpus),
                "--tokenizer",
                str(options.tokenizer),
                "--workers",
                str(options.threads),
                "--encoder",
                "gigatoken",
            ]
        )
        seconds, processor = time.perf_counter() - started, processor_time() - used
        assert status == 0
        facts = json.loads(Path(folder, "out", "corpus.json").read_text())
    # bos and eos of each document are not gigatoken's.
    tokens = facts["tokens"] - 2 * facts["documents"]
    return {
        "work": seconds,
        "processor": processor,
        "bytes": facts["bytes"],
        "tokens": tokens,
        "documents": facts["documents"],
    }


def processor_time() -> float:
    """Seconds of this process and of its workers that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def tiktoken_texts(options: argparse.Namespace) -> dict[str, float]:
    """tiktoken with the same merges, on texts in memory."""
    import tiktoken
    from tokenizers import pre_tokenizers

    content = json.loads(options.tokenizer.read_text())
    byte_of = byte_characters(sorted(pre_tokenizers.ByteLevel.alphabet()))
    specials = {token["content"]: token["id"] for token in content["added_tokens"]}
    ranks = {
        bytes(byte_of[character] for character in token): number
        for token, number in content["model"]["vocab"].items()
        if token not in specials
    }
    encoding = tiktoken.Encoding(
        "same", pat_str=_GPT2_PATTERN, mergeable_ranks=ranks, special_tokens=specials
    )
    texts = first_texts(options, options.tiktoken_bytes)
    started, used = time.perf_counter(), time.process_time()
    tokens = encoding.encode_ordinary_batch(texts, num_threads=options.threads)
    return result_of(texts, sum(map(len, tokens)), started, used)


def hugging_face_texts(options: argparse.Namespace) -> dict[str, float]:
    """Hugging Face's encode_batch, on texts in memory."""
    import tokenizers

    inner = tokenizers.Tokenizer.from_file(str(options.tokenizer))
    inner.encode_special_tokens = True
    texts = first_texts(options, options.hugging_face_bytes)
    started, used = time.perf_counter(), time.process_time()
    encoded = inner.encode_batch(texts, add_special_tokens=False)
    return result_of(texts, sum(len(each.ids) for each in encoded), started, used)


CHILDREN = {
    "gigatoken": gigatoken_files,
    "ours": ours,
    "tiktoken": tiktoken_texts,
    "hugging_face": hugging_face_texts,
}


def byte_characters(alphabet: list[str]) -> dict[str, int]:
    """The byte that each character of the byte-level alphabet stands for: printable ones for themselves."""
    printable = {character: ord(character) for character in alphabet if ord(character) < 256}
    others = (byte for byte in range(256) if byte not in printable.values())
    shifted = [character for character in alphabet if ord(character) >= 256]
    return {**printable, **dict(zip(shifted, others, strict=True))}


def first_texts(options: argparse.Namespace, size: int) -> list[str]:
    """Texts of about `size` bytes from the corpus's beginning."""
    from megasbp.corpus.lines import open_lines

    texts: list[str] = []
    held = 0
    with open_lines(options.corpus) as lines:
        while held < size and (line := lines.readline()):
            texts.append(json.loads(line)["text"])
            held += len(texts[-1].encode())
    return texts


def text_bytes(options: argparse.Namespace) -> int:
    """Bytes of all texts, outside any timing."""
    from megasbp.corpus.lines import open_lines

    with open_lines(options.corpus) as lines:
        return sum(len(json.loads(line)["text"].encode()) for line in lines)


def result_of(texts: list[str], tokens: int, started: float, used: float) -> dict[str, float]:
    """A child's result, from what both clocks showed at the beginning."""
    seconds, processor = time.perf_counter() - started, time.process_time() - used
    size = sum(len(text.encode()) for text in texts)
    return {"work": seconds, "processor": processor, "bytes": size, "tokens": tokens, "documents": len(texts)}


def speed(result: dict[str, float], clock: str) -> float:
    """MB of text per second."""
    return result["bytes"] / 1e6 / result[clock]


def publish(
    rounds: dict[str, list[dict[str, float]]], options: argparse.Namespace, machine: dict[str, Any]
) -> None:
    """Prints medians beside the targets and writes the results."""
    work = {
        name: statistics.median(speed(each, "work") for each in results) for name, results in rounds.items()
    }
    sides = {"of gigatoken's file mode": "gigatoken", "times tiktoken": "tiktoken"}
    ratios, processor_ratios = (
        {
            name: statistics.median(
                speed(mine, clock) / speed(theirs, clock)
                for mine, theirs in zip(rounds["ours"], rounds[side], strict=True)
            )
            for name, side in sides.items()
        }
        for clock in ("work", "processor")
    )
    whole = statistics.median(speed(each, "whole") for each in rounds["ours"])
    same = all(
        mine[name] == theirs[name]
        for mine, theirs in zip(rounds["ours"], rounds["gigatoken"], strict=True)
        for name in ("tokens", "documents", "bytes")
    )
    for name, value in work.items():
        print(f"{name:<14} {value:>8.1f} MB/s")
    print(f"ours, with start {whole:>6.1f} MB/s")
    for name, value in ratios.items():
        print(
            f"ours is {value:.2f} {name} (target: at least {TARGETS[name]}); "
            f"{processor_ratios[name]:.2f} by processor time, which other programs disturb less"
        )
    print(f"documents and tokens equal gigatoken's: {same}")
    body = {
        "megabytes_per_second": {**work, "ours_with_start": whole},
        "ratios": ratios,
        "ratios_by_processor_time": processor_ratios,
        "targets": TARGETS,
        "equal_to_gigatoken": same,
        "rounds": rounds,
        "threads": options.threads,
        **report.circumstances(PACKAGES, machine),
    }
    publish_json(options.results, body)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("corpus", type=Path, help="a .jsonl.zst file with a text field")
    parser.add_argument("--tokenizer", type=Path, required=True, help="a tokenizer.json of GPT-2's kind")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tiktoken-bytes", type=int, default=40_000_000)
    parser.add_argument("--hugging-face-bytes", type=int, default=6_000_000)
    parser.add_argument("--scratch", type=Path, help="where datasets are written and removed (the system's)")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results" / "preprocess.json")
    parser.add_argument("--child", choices=CHILDREN, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
