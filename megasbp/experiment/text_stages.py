"""Quality of the synthetic text."""

from pathlib import Path
from typing import Any

from megasbp.evaluation.quality import quality
from megasbp.experiment.arms import is_seeded
from megasbp.experiment.context import Context, open_dataset
from megasbp.experiment.measured_text import measured_documents, seeds_of
from megasbp.experiment.stages import StageResult


def quality_stage(context: Context, name: str, synthesis: StageResult | None) -> StageResult:
    """Quality of an arm's accepted text; of the real validation text when `synthesis` is None.

    Facts: "quality", as `megasbp.evaluation.quality` returns it for at most quality.maximum_documents, with
    "all_documents" where there are more.
    """
    corpus = context.corpus
    width = context.recipe.pairing.shingle_width

    def make(folder: Path) -> dict[str, Any]:
        tokenizer = corpus.open_tokenizer()
        if synthesis is None:
            dataset = corpus.open("validation")
        else:
            dataset = open_dataset(synthesis.folder / "synthetic", tokenizer)
        measured = measured_documents(context, name, len(dataset))
        documents = [dataset.document(document)[1:-1] for document in measured.tolist()]
        seeds = None
        if synthesis is not None and is_seeded(name):
            units = corpus.open_units("unique")
            seeds = [units.document(seed)[1:-1] for seed in seeds_of(synthesis, measured).tolist()]
        characters = [len(tokenizer.decode(document)) for document in documents]
        figures = quality(documents, seeds, [corpus.open("unique")], width, characters=characters)
        if len(measured) < len(dataset):
            figures = {"documents": len(measured), "all_documents": len(dataset), **figures}
        return {"quality": figures}

    inputs: dict[str, StageResult | str] = {"datasets": corpus.datasets}
    if synthesis is not None:
        inputs["synthesis"] = synthesis
    return context.workspace.stage(
        context.name(f"quality-{name}"),
        inputs=inputs,
        settings={"shingle_width": width, **context.recipe.quality.sample()},
        make=make,
    )
