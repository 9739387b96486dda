"""The synthetic text itself: its quality, and triples to read."""

from math import isnan
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from megasbp.evaluation.quality import quality
from megasbp.experiment.arms import is_seeded
from megasbp.experiment.context import Context, document_text, open_dataset
from megasbp.experiment.stages import StageResult
from megasbp.overlap.ngram_index import NgramIndex
from megasbp.pairing.table import read_pairs


def quality_stage(context: Context, name: str, synthesis: StageResult | None) -> StageResult:
    """Quality of an arm's accepted text; of the real validation text when `synthesis` is None."""
    corpus = context.corpus
    width = context.recipe.pairing.shingle_width

    def make(folder: Path) -> dict[str, Any]:
        tokenizer = corpus.open_tokenizer()
        if synthesis is None:
            dataset, seeds = corpus.open("validation"), None
        else:
            dataset, seeds = open_dataset(synthesis.folder / "synthetic", tokenizer), None
            if is_seeded(name):
                units = corpus.open_units("unique")
                seeds = [units.document(row["seed_doc"])[1:-1] for row in _accepted(synthesis)]
        documents = [dataset.document(document)[1:-1] for document in range(len(dataset))]
        texts = [tokenizer.decode(document) for document in documents]
        unique = corpus.open("unique")
        return {
            "quality": quality(documents, seeds, lambda n: NgramIndex.build([unique], n), width, texts=texts)
        }

    inputs: dict[str, StageResult | str] = {"datasets": corpus.datasets}
    if synthesis is not None:
        inputs["synthesis"] = synthesis
    return context.workspace.stage(
        context.name(f"quality-{name}"), inputs=inputs, settings={"shingle_width": width}, make=make
    )


def triples(context: Context, pairs: StageResult, synthesis: StageResult, count: int) -> list[dict[str, Any]]:
    """(seed, its most similar true partner, accepted synthetic document), in the order of the requests.

    Where similarity is unknown (null) the partner is the one with the lowest number.
    """
    corpus = context.corpus
    tokenizer = corpus.open_tokenizer()
    units = corpus.open_units("unique")
    parents, titles = corpus.unit_parents("unique"), corpus.column("unique", "title")
    generated = open_dataset(synthesis.folder / "synthetic", tokenizer)
    nearest: dict[int, dict[str, Any]] = {}
    for row in read_pairs(pairs.folder / "train.parquet").to_pylist():
        held = nearest.setdefault(row["seed_doc"], row)
        if row["similarity"] > held["similarity"]:
            nearest[row["seed_doc"]] = row
    chosen: list[dict[str, Any]] = []
    for position, row in enumerate(_accepted(synthesis)):
        seed_document = row["seed_doc"]
        if len(chosen) < count and seed_document in nearest:
            pair = nearest[seed_document]
            chosen.append(
                {
                    "seed_title": titles[parents[seed_document]],
                    "seed": document_text(units, seed_document, tokenizer),
                    "neighbour": document_text(units, pair["target_doc"], tokenizer),
                    "synthetic": document_text(generated, position, tokenizer),
                    "similarity": None if isnan(pair["similarity"]) else round(float(pair["similarity"]), 4),
                    "draw": row["draw"],
                    "accepted": True,
                }
            )
    return chosen


def _accepted(synthesis: StageResult) -> list[dict[str, Any]]:
    """Provenance of the accepted documents, in the order of the synthetic dataset."""
    table = pq.read_table(synthesis.folder / "provenance.parquet")
    return table.filter(table["accepted"]).to_pylist()
