"""Quality of the synthetic text."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from megasbp.evaluation.quality import quality
from megasbp.experiment.arms import is_seeded
from megasbp.experiment.context import Context, open_dataset
from megasbp.experiment.stages import StageResult
from megasbp.overlap.ngram_index import NgramIndex


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


def _accepted(synthesis: StageResult) -> list[dict[str, Any]]:
    """Provenance of the accepted documents, in the order of the synthetic dataset."""
    table = pq.read_table(synthesis.folder / "provenance.parquet")
    return table.filter(table["accepted"]).to_pylist()
