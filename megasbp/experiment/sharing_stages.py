"""What the synthetic text shares with the corpus, in long runs, and with text that models are tested on."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from megasbp.corpus.files import corpus_files
from megasbp.corpus.readers import read_documents
from megasbp.corpus.tokenizer import Tokenizer
from megasbp.data.indexed_dataset import IndexedDataset
from megasbp.evaluation.contamination import contamination
from megasbp.experiment.arms import is_seeded
from megasbp.experiment.context import Context, open_dataset
from megasbp.experiment.stages import StageResult
from megasbp.overlap.ngram_index import NgramIndex
from megasbp.storage import hash_file

# Splits that models are tested on.
_HELD_OUT = ("validation", "test")
_ENCODED_AT_ONCE = 1024


def sharing_stage(context: Context, synthesis: Mapping[str, StageResult]) -> StageResult:
    """Density of copying, and contamination with held-out and benchmark text.

    Facts: "density", "real" | arm -> {"corpus", "seed": None where there is none}, means over the documents;
    "contamination", as `megasbp.evaluation.contamination` returns it, for the unique text and each arm; and
    "before_filters", arm -> the share of all documents written, dropped ones among them, that hold a shingle
    of validation or test text that the unique text does not have.
    """
    recipe, corpus = context.recipe, context.corpus
    width = recipe.pairing.shingle_width
    benchmarks = {path.name: path for path in recipe.quality.benchmarks}

    def make(folder: Path) -> dict[str, Any]:
        tokenizer, unique = corpus.open_tokenizer(), corpus.open("unique")
        texts = {arm: open_dataset(one.folder / "synthetic", tokenizer) for arm, one in synthesis.items()}
        index = NgramIndex.build([unique], width)
        density: dict[str, Any] = {
            "real": {"corpus": _density(index, corpus.open("validation")), "seed": None}
        }
        for arm, text in texts.items():
            seeds = _seed_density(context, text, synthesis[arm]) if is_seeded(arm) else None
            density[arm] = {"corpus": _density(index, text), "seed": seeds}
        tests = {split: _documents(corpus.open(split)) for split in _HELD_OUT}
        field = recipe.quality.benchmark_field
        tests |= {name: _benchmark(path, field, tokenizer) for name, path in benchmarks.items()}
        sets = {"unique": _documents(unique), **{arm: _documents(text) for arm, text in texts.items()}}
        return {
            "density": density,
            "contamination": contamination(sets, tests, width),
            "before_filters": {arm: _before_filters(one) for arm, one in synthesis.items()},
        }

    return context.workspace.stage(
        context.name("sharing"),
        inputs={
            "datasets": corpus.datasets,
            "units": corpus.units,
            **{f"synthesis/{arm}": stage for arm, stage in synthesis.items()},
            **{
                f"benchmark/{name}/{place}": hash_file(file)
                for name, path in benchmarks.items()
                for place, file in enumerate(corpus_files([path]))
            },
        },
        settings={
            "shingle_width": width,
            **({"benchmark_field": recipe.quality.benchmark_field} if benchmarks else {}),
        },
        make=make,
    )


def _documents(dataset: IndexedDataset) -> Iterator[np.ndarray]:
    return (dataset.document(document)[1:-1] for document in range(len(dataset)))


def _benchmark(path: Path, field: str, tokenizer: Tokenizer) -> Iterator[np.ndarray]:
    batch: list[str] = []
    for document in read_documents([path], text_field=field):
        batch.append(document.text)
        if len(batch) == _ENCODED_AT_ONCE:
            yield from tokenizer.encode_batch(batch)
            batch = []
    yield from tokenizer.encode_batch(batch)


def _density(index: NgramIndex, dataset: IndexedDataset) -> float:
    return float(np.mean([index.density(document) for document in _documents(dataset)]))


def _seed_density(context: Context, text: IndexedDataset, synthesis: StageResult) -> float:
    """Mean density of copying from the own seed."""
    units, width = context.corpus.open_units("unique"), context.recipe.pairing.shingle_width
    table = pq.read_table(synthesis.folder / "provenance.parquet", columns=["seed_doc", "accepted"])
    seeds = table.filter(table["accepted"])["seed_doc"].to_pylist()
    values = [
        NgramIndex.build([units.document(seed)[1:-1]], width).density(document)
        for seed, document in zip(seeds, _documents(text), strict=True)
    ]
    return float(np.mean(values))


def _before_filters(synthesis: StageResult) -> float:
    column = pq.read_table(synthesis.folder / "provenance.parquet", columns=["held_out_copy"])[
        "held_out_copy"
    ]
    return float(np.mean(column.to_numpy() > 0))
