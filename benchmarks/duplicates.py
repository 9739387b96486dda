"""Near-duplicates beside rensa and datasketch: speed of signatures, planted duplicates found, costs.

    python -m benchmarks.duplicates CORPUS.jsonl.zst [MORE ...] [--output benchmarks/results/duplicates.json]

A corpus file is JSON lines with a "text", plain or .zst. Needs rensa and datasketch (extra dev). All sides
run in one process on one thread, in turn; times are medians, of the clock and of the processor.

Speed: ours from the tokens of an indexed dataset to files on disk, shingles of five tokens. From the same
documents' text rensa in the way of its README: words by str.split(), R-MinHash of them all, one call for all
documents; and its rho sketch, which looks at a sample of the words only. R-MinHash of our shingle hashes, as
it would be the library inside our stage. datasketch, words of text, on a part of the documents.

Finding: paragraphs and edited copies of some of them, the same five-token shingles for all. Recall is over
planted pairs whose exact similarity reaches the threshold, the false-positive rate over those below it.
"""

import argparse
import io
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ["RAYON_NUM_THREADS"] = "1"  # read when rensa is imported

import datasketch
import numpy as np
import rensa
import zstandard
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

import megasbp._C as core
from benchmarks import report
from megasbp.data.indexed_dataset import IndexedDatasetWriter
from megasbp.overlap.candidates import load_pairs
from megasbp.overlap.clusters import rows_per_band
from megasbp.overlap.corpus_clusters import cluster_corpus, run_here
from megasbp.overlap.shingles import jaccard_pairs, shingle_hashes
from megasbp.overlap.signatures import Signatures, bands_at, write_signatures
from megasbp.storage import publish_json

WIDTH, THRESHOLD, SEED = 5, 0.7, 1
SLOTS = 128
DATASKETCH_DOCUMENTS = 500
LIBRARIES = ("numpy", "rensa", "datasketch", "tokenizers")


def articles(files: list[Path]) -> Iterator[str]:
    for file in files:
        with open(file, "rb") as raw:
            stream = zstandard.ZstdDecompressor().stream_reader(raw) if file.suffix == ".zst" else raw
            for line in io.TextIOWrapper(stream, encoding="utf-8"):
                yield json.loads(line)["text"]


def take(texts: Iterator[str], count: int, shortest: int) -> list[str]:
    """The first texts of at least `shortest` words."""
    chosen = []
    for text in texts:
        if len(text.split()) >= shortest:
            chosen.append(text)
            if len(chosen) == count:
                break
    return chosen


def train_tokenizer(texts: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=16_384, show_progress=False))
    return tokenizer


def write_dataset(prefix: Path, documents: list[np.ndarray]) -> Path:
    with IndexedDatasetWriter(prefix, np.uint16) as writer:
        for document in documents:
            writer.add_document(document)
    return prefix


def medians(sides: dict[str, Callable[[], Any]], repeats: int) -> dict[str, tuple[float, float]]:
    """(Wall-clock, processor) seconds of each side; all sides once, and again.

    Processor time counts every thread of this process, and little of what else the machine does.
    """
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, side in sides.items():
            wall, processor = time.perf_counter(), time.process_time()
            side()
            times[name].append((time.perf_counter() - wall, time.process_time() - processor))
    return {
        name: (statistics.median(wall for wall, _ in runs), statistics.median(cpu for _, cpu in runs))
        for name, runs in times.items()
    }


def measure_speed(texts: list[str], tokens: list[np.ndarray], folder: Path, repeats: int) -> dict[str, Any]:
    prefix = write_dataset(folder / "speed", tokens)
    (folder / "speed-signatures").mkdir(exist_ok=True)
    hashes = [shingle_hashes(document, WIDTH) for document in tokens]
    flat, offsets = np.concatenate(hashes), np.cumsum([0, *map(len, hashes)])

    def ours() -> None:
        write_signatures(prefix, folder / "speed-signatures", width=WIDTH, threshold=THRESHOLD, seed=SEED)

    def rensa_words() -> None:
        words = [text.split() for text in texts]
        rensa.RMinHash.digest_matrix_from_token_sets(words, num_perm=SLOTS, seed=SEED)

    def rensa_rho() -> None:
        words = [text.split() for text in texts]
        rensa.RMinHash.digest_matrix_from_token_sets_rho(words, num_perm=SLOTS, seed=SEED)

    def rensa_shingle_hashes() -> None:
        rensa.RMinHash.digest_matrix_from_flat_token_hashes(flat, offsets, num_perm=SLOTS, seed=SEED)

    def rensa_from_tokens() -> None:
        shingles = np.concatenate([shingle_hashes(document, WIDTH) for document in tokens])
        matrix = rensa.RMinHash.digest_matrix_from_flat_token_hashes(shingles, offsets, SLOTS, SEED)
        # The only way out of the matrix.
        np.array(matrix.to_rows(), np.uint32).tofile(folder / "rensa.rows")

    def datasketch_words() -> None:
        for text in texts[:DATASKETCH_DOCUMENTS]:
            datasketch.MinHash(num_perm=SLOTS, seed=SEED).update_batch(
                [word.encode() for word in text.split()]
            )

    sides = {
        "ours, tokens to files": ours,
        "rensa R-MinHash, words of text": rensa_words,
        "rensa rho (samples words), words of text": rensa_rho,
        "rensa R-MinHash, shingle hashes ready": rensa_shingle_hashes,
        "rensa R-MinHash, tokens to a file": rensa_from_tokens,
        "datasketch, words of text": datasketch_words,
    }
    seconds = medians(sides, repeats)
    counts = {name: len(texts) for name in sides} | {"datasketch, words of text": DATASKETCH_DOCUMENTS}
    speeds = {name: counts[name] / seconds[name][0] for name in sides}
    processor_speeds = {name: counts[name] / seconds[name][1] for name in sides}
    ours, words, rho = list(sides)[:3]
    return {
        "documents": len(texts),
        "tokens_per_document": sum(map(len, tokens)) / len(tokens),
        "words_per_document": sum(len(text.split()) for text in texts) / len(texts),
        "documents_per_second": speeds,
        "documents_per_processor_second": processor_speeds,
        "ours_over_rensa_from_text": speeds[ours] / speeds[words],
        "ours_over_rensa_from_text_processor_time": processor_speeds[ours] / processor_speeds[words],
        "ours_over_rensa_rho_processor_time": processor_speeds[ours] / processor_speeds[rho],
    }


def edited(words: list[str], vocabulary: list[str], generator: np.random.Generator) -> list[str]:
    """One of: words deleted, words substituted, the end cut off."""
    kind = generator.integers(3)
    if kind == 0:
        kept = generator.random(len(words)) >= generator.uniform(0, 0.1)
        return [word for word, keep in zip(words, kept, strict=True) if keep]
    if kind == 1:
        changed = generator.random(len(words)) < generator.uniform(0, 0.08)
        return [
            vocabulary[generator.integers(len(vocabulary))] if change else word
            for word, change in zip(words, changed, strict=True)
        ]
    return words[: max(1, round(len(words) * generator.uniform(0.4, 1)))]


Found = set[tuple[int, int]]


def pairs_of_queries(answers: list[list[int]]) -> Found:
    return {
        (min(i, int(j)), max(i, int(j))) for i, others in enumerate(answers) for j in others if i != int(j)
    }


def rensa_pairs(sets: list[list[bytes]], bands: int, rows: int) -> dict[str, Found]:
    sketches = rensa.RMinHash.from_token_sets(sets, num_perm=bands * rows, seed=SEED)
    index = rensa.RMinHashLSH(threshold=THRESHOLD, num_perm=bands * rows, num_bands=bands)
    index.insert_many(sketches)
    proposed = pairs_of_queries(index.query_all(sketches))
    similar = {(i, j) for i, j in proposed if sketches[i].jaccard(sketches[j]) >= THRESHOLD}
    return {"rensa, bands": proposed, "rensa, bands and estimate": similar}


def datasketch_pairs(sets: list[list[bytes]], bands: int, rows: int) -> dict[str, Found]:
    sketches = []
    index = datasketch.MinHashLSH(num_perm=SLOTS, params=(bands, rows))
    for number, shingles in enumerate(sets):
        sketch = datasketch.MinHash(num_perm=SLOTS, seed=SEED)
        sketch.update_batch(shingles)
        index.insert(number, sketch)
        sketches.append(sketch)
    proposed = pairs_of_queries([index.query(sketch) for sketch in sketches])
    similar = {(i, j) for i, j in proposed if sketches[i].jaccard(sketches[j]) >= THRESHOLD}
    return {"datasketch, bands": proposed, "datasketch, bands and estimate": similar}


def our_pairs(signatures: Signatures, labels: np.ndarray) -> dict[str, Found]:
    proposed: Found = set()
    for keys in np.asarray(signatures.keys):
        order = np.argsort(keys, kind="stable")
        for group in np.split(order, np.flatnonzero(np.diff(keys[order])) + 1):
            proposed |= {(int(i), int(j)) for n, j in enumerate(group) for i in group[:n]}
    agreeing = {pair: (signatures.slots[pair[0]] == signatures.slots[pair[1]]).mean() for pair in proposed}
    similar = {pair for pair, share in agreeing.items() if (share - 1 / 256) / (1 - 1 / 256) >= THRESHOLD}
    clusters: dict[int, list[int]] = {}
    for document, label in enumerate(labels.tolist()):
        clusters.setdefault(label, []).append(document)
    joined = {(i, j) for members in clusters.values() for n, j in enumerate(members) for i in members[:n]}
    return {"ours, bands": proposed, "ours, bands and estimate": similar, "ours, clusters": joined}


def measure_finding(
    texts: list[str], tokenizer: Tokenizer, folder: Path, planted: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Finds planted copies with all three; returns what was found, and what our stages took."""
    generator = np.random.default_rng(SEED)
    words = [text.split() for text in texts]
    vocabulary = sorted({word for document in words for word in document})
    originals = generator.permutation(len(texts))[:planted]
    copies = [" ".join(edited(words[original], vocabulary, generator)) for original in originals]
    encoded = tokenizer.encode_batch([" ".join(document) for document in words] + copies)
    tokens = [np.array(document.ids, np.int64) for document in encoded]
    planted_pairs = [(int(original), len(texts) + i) for i, original in enumerate(originals)]
    first, second = np.array(planted_pairs).T
    similarity = jaccard_pairs(tokens, first, tokens, second, WIDTH)

    # As many shards as a run over a cluster would have tasks, so that nothing is measured in one piece.
    bounds = [len(tokens) * i // 4 for i in range(5)]
    datasets = [write_dataset(folder / f"finding-{i}", tokens[bounds[i] : bounds[i + 1]]) for i in range(4)]
    seconds: dict[str, float] = {}

    def timed(work: Callable[..., Any], tasks: Any, stage: Path, settings: Any) -> list[Path]:
        start = time.perf_counter()
        outputs = run_here(work, tasks, stage, settings)
        seconds[stage.name] = time.perf_counter() - start
        return outputs

    start = time.perf_counter()
    run = folder / "finding"
    cluster_corpus(datasets, run, width=WIDTH, threshold=THRESHOLD, seed=SEED, run=timed)
    seconds["all"] = time.perf_counter() - start
    labels = np.load(run / "clusters" / "clusters.npy")
    shards = [Signatures.open(run / "signatures" / f"{i:05d}") for i in range(4)]
    signatures = Signatures(
        np.concatenate([shard.keys for shard in shards], 1),
        np.concatenate([shard.slots for shard in shards]),
        shards[0].settings,
    )
    rows, bands = rows_per_band(THRESHOLD), bands_at(THRESHOLD)
    sets = [[hashed.tobytes() for hashed in np.unique(shingle_hashes(d, WIDTH))] for d in tokens]
    found = (
        our_pairs(signatures, labels) | rensa_pairs(sets, bands, rows) | datasketch_pairs(sets, bands, rows)
    )

    positive, negative = similarity >= THRESHOLD, similarity < THRESHOLD
    at_threshold = positive & (similarity < THRESHOLD + 0.1)
    results: dict[str, Any] = {}
    for name, pairs in found.items():
        hit = np.array([pair in pairs for pair in planted_pairs])
        returned = np.array(sorted(pairs)).reshape(-1, 2)
        exact = jaccard_pairs(tokens, returned[:, 0], tokens, returned[:, 1], WIDTH)
        results[name] = {
            "recall": float(hit[positive].mean()),
            "recall_just_above_the_threshold": float(hit[at_threshold].mean()),
            "false_positive_rate": float(hit[negative].mean()),
            "pairs_returned": len(pairs),
            "of_them_below_the_threshold": int((exact < THRESHOLD).sum()),
        }
    folders = sorted((run / "candidates").iterdir())
    finding = {
        "documents": len(tokens),
        "planted_pairs": len(planted_pairs),
        "planted_at_or_above_the_threshold": int(positive.sum()),
        "planted_within_0.1_above_it": int(at_threshold.sum()),
        "planted_below_it": int(negative.sum()),
        "bands": bands,
        "rows": rows,
        "found": results,
    }
    pipeline = {
        "documents": len(tokens),
        "seconds": seconds,
        "candidates_of_all_bands": sum(len(load_pairs(candidate)) for candidate in folders),
        "duplicates": int((labels != np.arange(len(labels))).sum()),
    }
    return finding, pipeline


def measure_constants(documents: int, repeats: int) -> dict[str, float]:
    """What a document costs the stages behind the signatures, on random keys and pairs; processor time."""
    generator = np.random.default_rng(SEED)
    keys = generator.integers(0, 2**63, documents, dtype=np.uint64)
    slots = np.zeros((documents, SLOTS), np.uint8)
    pairs = np.sort(generator.integers(0, documents, (documents // 2, 2)), axis=1)

    def band() -> None:
        groups = core.BandGroups(0, 1, documents)
        groups.add(keys, 0)
        groups.candidates([slots], [0, documents], False, 1, SLOTS)

    def union() -> None:
        sets = core.UnionFind(documents)
        sets.join(pairs)
        sets.take_labels()

    seconds = medians({"band": band, "union": union}, repeats)
    return {
        "documents": documents,
        "band_ns_per_document": 1e9 * seconds["band"][1] / documents,
        "union_ns_per_document_with_a_pair_for_every_second": 1e9 * seconds["union"][1] / documents,
        "signature_bytes_per_document": 8 * bands_at(THRESHOLD) + SLOTS,
        "label_bytes_per_document": 8,
        "candidate_task_bytes_per_document_of_its_part": 16,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("corpus", type=Path, nargs="+", help="JSON lines with a text, plain or .zst")
    parser.add_argument("--paragraphs", type=int, default=20_000)
    parser.add_argument("--articles", type=int, default=3_000)
    parser.add_argument("--planted", type=int, default=3_000)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "duplicates.json")
    arguments = parser.parse_args()

    machine = report.machine()
    long_texts = take(articles(arguments.corpus), arguments.articles, 100)
    lines = (line for text in articles(arguments.corpus) for line in text.split("\n"))
    paragraphs = take(lines, arguments.paragraphs, 40)
    tokenizer = train_tokenizer(long_texts[:1000])

    def encode(texts: list[str]) -> list[np.ndarray]:
        return [np.array(document.ids, np.int64) for document in tokenizer.encode_batch(texts)]

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        speed = {
            "paragraphs": measure_speed(paragraphs, encode(paragraphs), folder, arguments.repeats),
            "articles": measure_speed(long_texts, encode(long_texts), folder, arguments.repeats),
        }
        finding, pipeline = measure_finding(paragraphs, tokenizer, folder, arguments.planted)
    constants = measure_constants(2_000_000, 3)

    result = {
        **report.circumstances(LIBRARIES, machine),
        "threads": 1,
        "settings": {"width": WIDTH, "threshold": THRESHOLD, "slots": SLOTS, "repeats": arguments.repeats},
        "speed": speed,
        "finding": finding,
        "pipeline": pipeline,
        "constants": constants,
    }
    publish_json(arguments.output, result)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
