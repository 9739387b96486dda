"""One tokenisation of the preprocessing benchmark, in a process of its own.

    python -m benchmarks.preprocess_processes JOB CORPUS.jsonl.zst tokenizer.json THREADS SCRATCH

prints one JSON object: seconds after the imports, bytes of text, tokens, documents.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.measuring import ROOT, not_installed
from megasbp.corpus.lines import open_lines
from megasbp.corpus.tokenizer import Tokenizer

sys.path.insert(0, str(ROOT / "tools"))

_GPT2_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
# A few seconds each.
_TIKTOKEN_BYTES = 40_000_000
_HUGGING_FACE_BYTES = 6_000_000

Result = dict[str, float]


def ours(corpus: Path, tokenizer: Path, threads: int, scratch: Path) -> Result:
    """tools/preprocess_corpus.py, start-up check, sample and hashes included."""
    import preprocess_corpus

    encoder = "huggingface" if not_installed("gigatoken", "gigatoken") else "gigatoken"
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        command = [f"{folder}/out", str(corpus), "--tokenizer", str(tokenizer), "--workers", str(threads)]
        started = time.perf_counter()
        status = preprocess_corpus.main([*command, "--encoder", encoder])
        seconds = time.perf_counter() - started
        assert status == 0
        facts = json.loads(Path(folder, "out", "corpus.json").read_text())
    # bos and eos of each document are not the others'.
    tokens = facts["tokens"] - 2 * facts["documents"]
    return {"seconds": seconds, "bytes": facts["bytes"], "tokens": tokens, "documents": facts["documents"]}


def gigatoken(corpus: Path, tokenizer: Path, threads: int, scratch: Path) -> Result:
    """gigatoken's file mode; RAYON_NUM_THREADS gives its threads."""
    import gigatoken as library

    content = Tokenizer.load(tokenizer).json_without_special_tokens()
    started = time.perf_counter()
    inner = library.Tokenizer.from_json(content)
    encoded = inner.encode_files(library.JsonlFileSource([corpus]), parallel=True)
    seconds = time.perf_counter() - started
    tokens = int(encoded.layout.offsets.data[-1])
    with open_lines(corpus) as lines:
        size = sum(len(json.loads(line)["text"].encode()) for line in iter(lines.readline, b""))
    return {"seconds": seconds, "bytes": size, "tokens": tokens, "documents": len(encoded)}


def tiktoken(corpus: Path, tokenizer: Path, threads: int, scratch: Path) -> Result:
    """tiktoken with the same merges, on texts in memory."""
    import tiktoken as library
    from tokenizers import pre_tokenizers

    content = json.loads(tokenizer.read_text())
    byte_of = byte_characters(sorted(pre_tokenizers.ByteLevel.alphabet()))
    specials = {token["content"]: token["id"] for token in content["added_tokens"]}
    ranks = {
        bytes(byte_of[character] for character in token): number
        for token, number in content["model"]["vocab"].items()
        if token not in specials
    }
    encoding = library.Encoding("same", pat_str=_GPT2_PATTERN, mergeable_ranks=ranks, special_tokens=specials)
    texts = first_texts(corpus, _TIKTOKEN_BYTES)
    started = time.perf_counter()
    tokens = encoding.encode_ordinary_batch(texts, num_threads=threads)
    return result_of(texts, time.perf_counter() - started, sum(map(len, tokens)))


def hugging_face(corpus: Path, tokenizer: Path, threads: int, scratch: Path) -> Result:
    """Hugging Face's encode_batch, on texts in memory; RAYON_NUM_THREADS gives its threads."""
    import tokenizers

    inner = tokenizers.Tokenizer.from_file(str(tokenizer))
    inner.encode_special_tokens = True
    texts = first_texts(corpus, _HUGGING_FACE_BYTES)
    started = time.perf_counter()
    encoded = inner.encode_batch(texts, add_special_tokens=False)
    return result_of(texts, time.perf_counter() - started, sum(len(each.ids) for each in encoded))


def byte_characters(alphabet: list[str]) -> dict[str, int]:
    """The byte that each character of the byte-level alphabet stands for: printable ones for themselves."""
    printable = {character: ord(character) for character in alphabet if ord(character) < 256}
    others = (byte for byte in range(256) if byte not in printable.values())
    shifted = [character for character in alphabet if ord(character) >= 256]
    return {**printable, **dict(zip(shifted, others, strict=True))}


def first_texts(corpus: Path, size: int) -> list[str]:
    """Texts of about `size` bytes from the corpus's beginning."""
    texts: list[str] = []
    held = 0
    with open_lines(corpus) as lines:
        while held < size and (line := lines.readline()):
            texts.append(json.loads(line)["text"])
            held += len(texts[-1].encode())
    return texts


def result_of(texts: list[str], seconds: float, tokens: int) -> Result:
    """What a side that got texts in memory prints."""
    size = sum(len(text.encode()) for text in texts)
    return {"seconds": seconds, "bytes": size, "tokens": tokens, "documents": len(texts)}


JOBS = {"ours": ours, "gigatoken": gigatoken, "tiktoken": tiktoken, "hugging_face": hugging_face}

if __name__ == "__main__":
    job, corpus, tokenizer, threads, scratch = sys.argv[1:]
    print(json.dumps(JOBS[job](Path(corpus), Path(tokenizer), int(threads), Path(scratch))))
