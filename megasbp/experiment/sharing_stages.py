"""What the synthetic text shares with the corpus, in long runs, and with text that models are tested on."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from megasbp.corpus.tokenizer import Tokenizer
from megasbp.data.indexed_dataset import IndexedDataset
from megasbp.evaluation.contamination import contamination
from megasbp.experiment.arms import is_seeded
from megasbp.experiment.context import Context, open_dataset
from megasbp.experiment.measured_text import measured_documents, seeds_of
from megasbp.experiment.stages import StageResult
from megasbp.overlap.ngram_index import NgramIndex
from megasbp.storage import hash_file, hash_object

# Splits that models are tested on.
_HELD_OUT = ("validation", "test")
_ENCODED_AT_ONCE = 1024


def sharing_stage(context: Context, synthesis: Mapping[str, StageResult]) -> StageResult:
    """Density of copying, and contamination with held-out and benchmark text.

    Of the unique text and of each arm at most quality.maximum_documents are measured.

    Facts: "density", "real" | arm -> {"corpus", "seed": None where there is none}, means over the documents;
    "contamination", as `megasbp.evaluation.contamination` returns it, for the unique text and each arm, with
    "unreadable" rows of each benchmark; "measured", set -> documents, where one has more than were measured;
    and "before_filters", arm -> the share of all documents written, dropped ones among them, that hold a
    shingle of validation or test text that the unique text does not have.
    """
    recipe, corpus = context.recipe, context.corpus
    width = recipe.pairing.shingle_width
    benchmarks = recipe.quality.opened_benchmarks(recipe.evaluation.downstream.data)

    def make(folder: Path) -> dict[str, Any]:
        tokenizer, unique = corpus.open_tokenizer(), corpus.open("unique")
        texts = {"unique": unique, "real": corpus.open("validation")}
        texts |= {arm: open_dataset(one.folder / "synthetic", tokenizer) for arm, one in synthesis.items()}
        measured = {name: measured_documents(context, name, len(text)) for name, text in texts.items()}

        def documents(name: str) -> Iterator[np.ndarray]:
            return _documents(texts[name], measured[name])

        compared = ("real", *synthesis)
        # One index of them all, so that the corpus is read once.
        ngrams = NgramIndex.build((one for name in compared for one in documents(name)), width)
        index = ngrams.within([unique])
        density: dict[str, Any] = {
            name: {"corpus": _mean(index.density(one) for one in documents(name)), "seed": None}
            for name in compared
        }
        for arm in filter(is_seeded, synthesis):
            seeds = seeds_of(synthesis[arm], measured[arm])
            density[arm]["seed"] = _seed_density(context, documents(arm), seeds)
        tests = {split: _documents(corpus.open(split)) for split in _HELD_OUT}
        tests |= {one.name: _encoded(one.texts(), tokenizer) for one in benchmarks}
        sets = ("unique", *synthesis)
        found = contamination({name: documents(name) for name in sets}, tests, width)
        for one in benchmarks:
            found[one.name]["unreadable"] = one.unreadable
        facts = {
            "density": density,
            "contamination": found,
            "before_filters": {arm: _before_filters(one) for arm, one in synthesis.items()},
        }
        if any(len(measured[name]) < len(texts[name]) for name in sets):
            facts["measured"] = {name: len(measured[name]) for name in sets}
        return facts

    tasks = {one.name: hash_object(one.task.config) for one in benchmarks if one.task is not None}
    return context.workspace.stage(
        context.name("sharing"),
        inputs={
            "datasets": corpus.datasets,
            "units": corpus.units,
            **{f"synthesis/{arm}": stage for arm, stage in synthesis.items()},
            **{
                f"benchmark/{one.name}/{place}": hash_file(file)
                for one in benchmarks
                for place, file in enumerate(one.files)
            },
        },
        settings={
            "shingle_width": width,
            **({"benchmark_field": recipe.quality.benchmark_field} if len(benchmarks) > len(tasks) else {}),
            **({"benchmark_tasks": tasks} if tasks else {}),
            **recipe.quality.sample(),
        },
        make=make,
    )


def _documents(dataset: IndexedDataset, numbers: np.ndarray | None = None) -> Iterator[np.ndarray]:
    chosen = range(len(dataset)) if numbers is None else numbers
    return (dataset.document(int(document))[1:-1] for document in chosen)


def _encoded(texts: Iterable[str], tokenizer: Tokenizer) -> Iterator[np.ndarray]:
    batch: list[str] = []
    for text in texts:
        batch.append(text)
        if len(batch) == _ENCODED_AT_ONCE:
            yield from tokenizer.encode_batch(batch)
            batch = []
    yield from tokenizer.encode_batch(batch)


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def _seed_density(context: Context, documents: Iterable[np.ndarray], seeds: np.ndarray) -> float:
    """Mean density of copying from the own seed."""
    units, width = context.corpus.open_units("unique"), context.recipe.pairing.shingle_width
    return _mean(
        NgramIndex.build([units.document(seed)[1:-1]], width).density(document)
        for seed, document in zip(seeds.tolist(), documents, strict=True)
    )


def _before_filters(synthesis: StageResult) -> float:
    column = pq.read_table(synthesis.folder / "provenance.parquet", columns=["held_out_copy"])[
        "held_out_copy"
    ]
    return float(np.mean(column.to_numpy() > 0))
