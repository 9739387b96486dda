"""Own-model embeddings beside MiniLM and TF-IDF: do they find the same neighbours, and of the same topic?

    python -m benchmarks.embeddings RUN CORPUS [--documents 3000] [--out benchmarks/results/embeddings.json]

RUN is the folder of a run of configs/demo.toml that has trained its baseline (`megasbp run configs/demo.toml
--until train-baseline`), CORPUS its JSONL file, whose field `topic` labels the documents.

Everything is fitted on the unique documents. Settings of the own-model embedding are chosen on the unique and
validation documents; the figures are of a sample of the documents that no arm but the oracle is trained on.
The test split is not touched. Documents without a topic ("Uncategorized") are left out of both.
"""

import argparse
import json
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch

from benchmarks import report
from megasbp.addressing import derive_key
from megasbp.corpus.readers import read_documents
from megasbp.corpus.splits import SPLITS
from megasbp.corpus.tokenizer import Tokenizer
from megasbp.model.transformer import Transformer
from megasbp.pairing.checkpoint_embedder import CheckpointEmbedder
from megasbp.pairing.embedding import length_batches, unit_rows
from megasbp.pairing.pairs import hubness, similarity_histogram
from megasbp.pairing.search import nearest_neighbours
from megasbp.pairing.sentence_embedder import SentenceEmbedder, minilm_folder
from megasbp.pairing.tfidf_embedder import TfidfEmbedder
from megasbp.storage import hash_file, publish_json
from megasbp.training.checkpoint import load_model, newest_checkpoint

NEIGHBOURS = 10
RESAMPLES = 2000
PACKAGES = ("torch", "numpy", "scikit-learn", "sentence-transformers", "faiss-cpu")
NO_TOPIC = "Uncategorized"
# Weights of tokens: None is the plain mean; else a / (a + share of the token), Arora et al. 2017 (SIF).
SMOOTHINGS = (None, 1e-2, 1e-3, 1e-4)
# Leading principal components removed after centring, Mu & Viswanath 2018; "whiten" gives all equal variance.
REMOVALS: tuple[int | str, ...] = (0, 1, 2, 4, 8, "whiten")


def main() -> None:
    arguments = parse_arguments()
    machine = report.machine()
    texts, topics, splits = read_corpus(arguments.run, arguments.corpus)
    fit = [texts[place] for place in np.flatnonzero(splits == SPLITS.index("unique"))]
    labelled = topics != NO_TOPIC
    choice = np.flatnonzero(labelled & np.isin(splits, [SPLITS.index(n) for n in ("unique", "validation")]))
    others = np.flatnonzero(labelled & np.isin(splits, [SPLITS.index(n) for n in ("oracle", "unused")]))
    generator = np.random.Generator(np.random.Philox(key=derive_key(0, "embedding benchmark")))
    reported = np.sort(generator.permutation(others)[: arguments.documents])

    model, tokenizer = open_baseline(arguments.run)
    shares = token_shares(tokenizer, fit)
    fitted = all_means(model, tokenizer, shares, fit)
    means = all_means(model, tokenizer, shares, [texts[place] for place in choice])
    variants = own_variants(fitted, means, topics[choice])
    best = variants[0]
    print(f"best on the documents to choose by: {best}")

    found: dict[str, np.ndarray] = {}
    figures: dict[str, Any] = {}
    embedders: dict[str, Callable[[], Any]] = {
        "tfidf": lambda: TfidfEmbedder.fit(fit),
        "checkpoint": lambda: CheckpointEmbedder.fit(model, tokenizer, fit),
        "minilm": lambda: SentenceEmbedder(str(minilm_folder()), label="minilm", maximum_tokens=256),
    }
    wanted = [texts[place] for place in reported]
    for name, open_one in embedders.items():
        embedder = open_one()
        start = time.perf_counter()
        vectors = embedder.embed(wanted)
        seconds = time.perf_counter() - start
        found[name], figures[name] = describe(vectors, topics[reported])
        figures[name] |= {
            "dimension": vectors.shape[1],
            "documents_per_second": round(len(wanted) / seconds, 1),
        }
        print(name, json.dumps(figures[name]["topic_agreement"]))
    means = all_means(model, tokenizer, shares, wanted)
    plain = {"layer": "final", "unit_tokens": False, "smoothing": None, "removed": 0}
    for name, setting in (("checkpoint, plain mean", plain), ("checkpoint, best variant", best["setting"])):
        key = (setting["layer"], setting["unit_tokens"], setting["smoothing"])
        vectors = finish(fitted[key], means[key], setting["removed"])
        found[name], figures[name] = describe(vectors, topics[reported])
        print(name, json.dumps(figures[name]["topic_agreement"]))

    publish_json(
        arguments.out,
        {
            "what": "neighbours by own-model, TF-IDF and MiniLM embeddings",
            **report.circumstances(PACKAGES, machine),
            "corpus": {
                "sha256": hash_file(arguments.corpus),
                "fitted_on": len(fit),
                "chosen_on": len(choice),
                "reported_on": len(reported),
                "of": len(others),
            },
            "model_parameters": sum(weight.numel() for weight in model.parameters()),
            "chance_of_one_topic": chance(topics[reported]),
            "embedders": figures,
            "neighbour_overlap": overlaps(found),
            "gain_over_plain_mean": {
                name: gain(found[name], found["checkpoint, plain mean"], topics[reported])
                for name in found
                if name != "checkpoint, plain mean"
            },
            "variants_on_the_documents_to_choose_by": variants,
        },
    )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--documents", type=int, default=3000, help="sample that the figures are of")
    default = Path(__file__).parent / "results" / "embeddings.json"
    parser.add_argument("--out", type=Path, default=default)
    return parser.parse_args()


def read_corpus(run: Path, corpus: Path) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Texts as the run has them (title first), topics, and each document's split code."""
    documents = list(read_documents([corpus], title_field="title", metadata_fields=["topic"]))
    table = pq.read_table(only(run, "split-*") / "documents.parquet")
    if table["id"].to_pylist() != [document.id for document in documents]:
        raise SystemExit(f"{corpus} is not the corpus of {run}")
    topics = np.array([document.metadata["topic"] or NO_TOPIC for document in documents])
    return [document.text for document in documents], topics, table["split"].to_numpy()


def open_baseline(run: Path) -> tuple[Transformer, Tokenizer]:
    checkpoint = newest_checkpoint(only(run, "seed-0/train-baseline-*") / "checkpoints")
    assert checkpoint is not None
    return load_model(checkpoint), Tokenizer.load(only(run, "tokenizer-*") / "tokenizer.json")


def only(run: Path, pattern: str) -> Path:
    found = sorted(run.glob(pattern))
    if len(found) != 1:
        raise SystemExit(
            f"{run} has {len(found)} folders {pattern}, must have one; run `megasbp clean` on it"
        )
    return found[0]


Means = dict[tuple[str, bool, float | None], np.ndarray]


def own_variants(fitted: Means, means: Means, topics: np.ndarray) -> list[dict[str, Any]]:
    """Every variant with its topic agreement on the documents to choose by, the best first."""
    results = []
    for key in means:
        for removed in REMOVALS:
            vectors = finish(fitted[key], means[key], removed)
            _, index = nearest_neighbours(vectors, vectors, NEIGHBOURS, exclude_same_row=True)
            agree = topics[index] == topics[:, None]
            setting = dict(zip(("layer", "unit_tokens", "smoothing"), key, strict=True)) | {
                "removed": removed
            }
            results.append(
                {"setting": setting, "nearest": round(agree[:, 0].mean(), 4), "ten": round(agree.mean(), 4)}
            )
    return sorted(results, key=lambda one: -one["ten"])


def token_shares(tokenizer: Tokenizer, texts: list[str]) -> np.ndarray:
    """float64 [V], the share of each token in the texts; 1 for bos, which every document has."""
    counts = np.zeros(tokenizer.vocabulary_size)
    for tokens in tokenizer.encode_batch(texts):
        counts += np.bincount(tokens, minlength=len(counts))
    shares = counts / counts.sum()
    shares[tokenizer.bos] = 1
    return shares


@torch.inference_mode()
def all_means(model: Transformer, tokenizer: Tokenizer, shares: np.ndarray, texts: list[str]) -> Means:
    """(layer, unit tokens, smoothing) -> float64 [n, D]: weighted means of the states of `bos document`.

    Layers: "0" the token embeddings, "N" after block N, "final" after the final norm, too. Unit tokens: each
    state is scaled to length 1 before the mean, so that a few long ones do not decide it.
    """
    layers: dict[str, torch.Tensor] = {}

    def remember(name: str) -> Callable[..., None]:
        def hook(module: torch.nn.Module, inputs: Any, output: torch.Tensor) -> None:
            layers[name] = output.float()

        return hook

    parts = {"0": model.embedding, "final": model.norm}
    parts |= {str(number + 1): block for number, block in enumerate(model.blocks)}
    handles = [part.register_forward_hook(remember(name)) for name, part in parts.items()]
    weights = {
        smoothing: torch.from_numpy(
            np.ones(len(shares)) if smoothing is None else smoothing / (smoothing + shares)
        ).float()
        for smoothing in SMOOTHINGS
    }
    longest = model.config.maximum_positions
    documents = [
        torch.from_numpy(np.concatenate([[tokenizer.bos], tokens]).astype(np.int64)[:longest])
        for tokens in tokenizer.encode_batch(texts)
    ]
    means = {
        key: np.empty((len(texts), model.config.width)) for key in product(parts, (False, True), SMOOTHINGS)
    }
    for batch in length_batches([len(document) for document in documents], 8192):
        rows = [documents[place] for place in batch]
        tokens = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=tokenizer.eos)
        real = torch.arange(tokens.shape[1]) < torch.tensor([len(row) for row in rows])[:, None]
        positions = torch.arange(tokens.shape[1]).expand(tokens.shape)
        model.hidden(tokens, positions, torch.where(real, 0, -1))
        for (layer, unit, smoothing), values in means.items():
            state = layers[layer]
            weight = weights[smoothing][tokens] * real
            if unit:
                weight = weight / state.norm(dim=-1).clamp_min(1e-12)
            values[batch] = torch.einsum("bs,bsd->bd", weight, state).double().numpy()
            values[batch] /= (weights[smoothing][tokens] * real).sum(dim=1, keepdim=True).double().numpy()
    for handle in handles:
        handle.remove()
    return means


def finish(fitted: np.ndarray, means: np.ndarray, removed: int | str) -> np.ndarray:
    """float32 [n, D] unit rows: centred, without the leading components, as fitted."""
    centre = fitted.mean(axis=0)
    _, sizes, directions = np.linalg.svd(fitted - centre, full_matrices=False)
    vectors = means - centre
    if removed == "whiten":
        vectors = vectors @ directions.T / sizes
    else:
        vectors = vectors - vectors @ directions[:removed].T @ directions[:removed]
    return unit_rows(vectors)


def describe(vectors: np.ndarray, topics: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
    """Neighbours int64 [n, 10], and what they look like."""
    similarity, index = nearest_neighbours(vectors, vectors, NEIGHBOURS, exclude_same_row=True)
    agree = (topics[index] == topics[:, None]).astype(np.float64)
    nearest = similarity_histogram(similarity)
    filled = [place for place, size in enumerate(nearest["counts"]) if size]
    return index, {
        "topic_agreement": {"nearest": interval(agree[:, 0]), "ten": interval(agree.mean(axis=1))},
        "hubness": {name: round(value, 4) for name, value in hubness(index, len(vectors)).items()},
        "similarity_of_neighbours": {
            "edges": nearest["edges"][filled[0] : filled[-1] + 2],
            "counts": nearest["counts"][filled[0] : filled[-1] + 1],
        },
    }


def interval(values: np.ndarray) -> dict[str, float]:
    """Mean over documents with its 95% percentile bootstrap interval; documents are resampled."""
    generator = np.random.Generator(np.random.Philox(key=derive_key(0, "bootstrap")))
    draws = [
        float(values[generator.integers(len(values), size=len(values))].mean()) for _ in range(RESAMPLES)
    ]
    low, high = np.quantile(draws, [0.025, 0.975])
    return {"estimate": round(float(values.mean()), 4), "low": round(low, 4), "high": round(high, 4)}


def gain(index: np.ndarray, reference: np.ndarray, topics: np.ndarray) -> dict[str, float]:
    """What the ten neighbours agree in topic more than the reference's, paired by document."""
    one, other = ((topics[found] == topics[:, None]).mean(axis=1) for found in (index, reference))
    return interval(one - other)


def chance(topics: np.ndarray) -> float:
    """Probability that two different documents have one topic."""
    _, counts = np.unique(topics, return_counts=True)
    return round(float((counts * (counts - 1)).sum() / (len(topics) * (len(topics) - 1))), 4)


def overlaps(found: dict[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """Share of the ten neighbours that two embedders have in common; by chance it is 10 / (n - 1)."""
    names = list(found)
    return {
        f"{one} and {other}": interval(
            np.array([len(np.intersect1d(*pair)) for pair in zip(found[one], found[other], strict=True)])
            / NEIGHBOURS
        )
        for place, one in enumerate(names)
        for other in names[place + 1 :]
    }


if __name__ == "__main__":
    main()
