"""Own-model embeddings beside MiniLM and TF-IDF: do they find the same neighbours, and of the same topic?

The model is the baseline of a run of configs/demo.toml (megasbp run configs/demo.toml --until
train-baseline). Everything is fitted on the run's unique documents; the figures are of a sample of the
documents that no arm but the oracle is trained on, and documents without a topic ("Uncategorized") are left
out. The test split is not touched. With --variants, many other ways from the model's states to a vector are
tried on the unique and validation documents, and the best of them is a side, see
benchmarks/embedding_variants.py.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from benchmarks import embedding_variants
from benchmarks.measuring import OURS, ROOT, Measure, Side
from benchmarks.texts import DEMO_CORPUS
from megasbp.addressing import derive_key
from megasbp.corpus.readers import read_documents
from megasbp.corpus.splits import SPLITS
from megasbp.corpus.tokenizer import Tokenizer
from megasbp.errors import InputError
from megasbp.model.transformer import Transformer
from megasbp.pairing.checkpoint_embedder import CheckpointEmbedder
from megasbp.pairing.embedders import Embedder
from megasbp.pairing.pairs import hubness
from megasbp.pairing.search import nearest_neighbours
from megasbp.pairing.sentence_embedder import SentenceEmbedder, minilm_folder
from megasbp.pairing.tfidf_embedder import TfidfEmbedder
from megasbp.storage import MANIFEST_NAME
from megasbp.training.checkpoint import load_model
from megasbp.training.checkpoint_files import newest_checkpoint

PACKAGES = ("megasbp", "torch", "numpy", "scikit-learn", "sentence-transformers")
_NEIGHBOURS = 10
_RESAMPLES = 2000
_NO_TOPIC = "Uncategorized"
_OWN, _BEST = f"{OURS}, own model", f"{OURS}, own model, best variant"
_TFIDF, _MINILM, _CHANCE = "TF-IDF", "MiniLM", "chance"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of this subject."""
    default = ROOT / "runs" / "demo"
    parser.add_argument("--run", type=Path, default=default, help="a run with its baseline (runs/demo)")
    parser.add_argument("--corpus", type=Path, default=DEMO_CORPUS, help="the run's (the demo corpus)")
    parser.add_argument("--documents", type=int, default=1500, help="that the figures are of (%(default)s)")
    parser.add_argument("--variants", action="store_true", help="try other ways to a vector, too (slow)")


def measure(options: argparse.Namespace, scratch: Path) -> list[Measure]:
    """Every measure of this subject.

    Raises:
        InputError: the run has no baseline, or is not of this corpus.
    """
    model, tokenizer = _open_baseline(options.run)
    texts, topics, splits = _read_corpus(options.run, options.corpus)

    def places(*names: str) -> np.ndarray:
        return np.flatnonzero(np.isin(splits, [SPLITS.index(name) for name in names]))

    labelled = topics != _NO_TOPIC
    fit = [texts[place] for place in places("unique")]
    others = places("oracle", "unused")
    generator = np.random.Generator(np.random.Philox(key=derive_key(0, "embedding benchmark")))
    reported = np.sort(generator.permutation(others[labelled[others]])[: options.documents])
    wanted, topics_wanted = [texts[place] for place in reported], topics[reported]

    speeds: dict[str, Side] = {}
    found: dict[str, np.ndarray] = {}
    for name, opened in _embedders(model, tokenizer, fit).items():
        try:
            embedder = opened()
        except InputError as error:
            speeds[name] = Side(missing=str(error))
            continue
        start = time.perf_counter()
        vectors = embedder.embed(wanted)
        speeds[name] = Side([len(wanted) / (time.perf_counter() - start)], note=f"{vectors.shape[1]} wide")
        found[name] = _neighbours(vectors)
    best = Side()
    if options.variants:
        choice = places("unique", "validation")
        choice = choice[labelled[choice]]
        chosen = [texts[place] for place in choice]
        setting, vectors = embedding_variants.best(model, tokenizer, fit, chosen, topics[choice], wanted)
        found[_BEST] = _neighbours(vectors)
        best.facts = setting
    agreement = _agreement(found, topics_wanted, speeds, best)
    return [*agreement, _overlap(found, speeds), Measure("embedding documents", "documents/s", True, speeds)]


def _embedders(model: Transformer, tokenizer: Tokenizer, fit: list[str]) -> dict[str, Callable[[], Embedder]]:
    return {
        _OWN: lambda: CheckpointEmbedder.fit(model, tokenizer, fit),
        _TFIDF: lambda: TfidfEmbedder.fit(fit),
        _MINILM: lambda: SentenceEmbedder(str(minilm_folder()), label="minilm", maximum_tokens=256),
    }


def _neighbours(vectors: np.ndarray) -> np.ndarray:
    """int64 [n, 10]."""
    return nearest_neighbours(vectors, vectors, _NEIGHBOURS, exclude_same_row=True)[1]


def _agreement(
    found: dict[str, np.ndarray], topics: np.ndarray, embedders: dict[str, Side], best: Side
) -> list[Measure]:
    """Shares of neighbours of the same topic, of the nearest and of all ten; gains over ours by document."""
    measures = []
    _, counts = np.unique(topics, return_counts=True)
    chance = float((counts * (counts - 1)).sum() / (len(topics) * (len(topics) - 1)))
    for title, count in (("nearest neighbour", 1), (f"{_NEIGHBOURS} nearest neighbours", _NEIGHBOURS)):
        sides = {name: Side(missing=side.missing) for name, side in embedders.items()}
        if _BEST in found:
            sides[_BEST] = Side(facts=dict(best.facts))
        for name, index in found.items():
            agree = (topics[index[:, :count]] == topics[:, None]).mean(axis=1)
            sides[name].values = [float(agree.mean())]
            spread = hubness(index, len(index))
            sides[name].facts |= {**interval(agree), "hubness_skewness": round(spread["skewness"], 3)}
            if name != _OWN:
                own = (topics[found[_OWN][:, :count]] == topics[:, None]).mean(axis=1)
                sides[name].facts |= {f"gain_{end}": value for end, value in interval(agree - own).items()}
        sides[_CHANCE] = Side([chance], note="two documents of one topic")
        measures.append(Measure(f"same topic, {title} of {len(topics):,} documents", "", True, sides))
    return measures


def _overlap(found: dict[str, np.ndarray], embedders: dict[str, Side]) -> Measure:
    """Share of MiniLM's ten neighbours that each finds; TF-IDF's where MiniLM is missing."""
    reference = _MINILM if _MINILM in found else _TFIDF
    sides = {name: Side(missing=side.missing) for name, side in embedders.items() if name != reference}
    for name, index in found.items():
        if name == reference:
            continue
        pairs = zip(index, found[reference], strict=True)
        common = np.array([len(np.intersect1d(*pair)) for pair in pairs]) / _NEIGHBOURS
        sides[name] = Side([float(common.mean())], facts=interval(common))
    sides[_CHANCE] = Side([_NEIGHBOURS / (len(found[reference]) - 1)])
    return Measure(f"ten neighbours in common with {reference}", "", True, sides)


def interval(values: np.ndarray) -> dict[str, float]:
    """95% percentile bootstrap interval of the mean over documents, which are resampled."""
    generator = np.random.Generator(np.random.Philox(key=derive_key(0, "bootstrap")))
    draws = [
        float(values[generator.integers(len(values), size=len(values))].mean()) for _ in range(_RESAMPLES)
    ]
    low, high = np.quantile(draws, [0.025, 0.975])
    return {"low": round(float(low), 4), "high": round(float(high), 4)}


def _read_corpus(run: Path, corpus: Path) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Texts as the run has them (title first), topics, and each document's split code."""
    documents = list(read_documents([corpus], title_field="title", metadata_fields=["topic"]))
    table = pq.read_table(_only(run, "split-*") / "documents.parquet")
    if table["id"].to_pylist() != [document.id for document in documents]:
        raise InputError(f"{corpus} is not the corpus of {run}; give the run's own by --corpus")
    topics = np.array([document.metadata["topic"] or _NO_TOPIC for document in documents])
    return [document.text for document in documents], topics, table["split"].to_numpy()


def _open_baseline(run: Path) -> tuple[Transformer, Tokenizer]:
    stage = _only(run, "seed-0/train-baseline-*")
    checkpoint = newest_checkpoint(stage / "checkpoints")
    # The manifest comes last: without it the newest checkpoint is of a training that was stopped.
    if checkpoint is None or not (stage / MANIFEST_NAME).is_file():
        raise InputError(f"{run}: the baseline is not finished; {_MEND}")
    return load_model(checkpoint), Tokenizer.load(_only(run, "tokenizer-*") / "tokenizer.json")


_MEND = "megasbp run configs/demo.toml --until train-baseline, or give a run that has one by --run"


def _only(run: Path, pattern: str) -> Path:
    found = sorted(run.glob(pattern))
    if not found:
        raise InputError(f"{run} has no folder {pattern}; {_MEND}")
    if len(found) > 1:
        raise InputError(f"{run} has {len(found)} folders {pattern}, must have one: megasbp clean on it")
    return found[0]
