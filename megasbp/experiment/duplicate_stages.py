"""Near-duplicates within the synthetic text, beside real text of the same size."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import megasbp._C as core
from megasbp.addressing import derive_key
from megasbp.evaluation.duplicates import near_duplicates_at, sizes_to_measure
from megasbp.experiment.context import Context, open_dataset
from megasbp.experiment.stages import StageResult

# As `evaluation.quality` and the paper's rates beside it.
_THRESHOLD = 0.7


def duplicates_stage(context: Context, synthesis: Mapping[str, StageResult]) -> StageResult:
    """Near-duplicates among the first N accepted documents of each arm, and among N of the oracle's.

    The oracle's documents are drawn uniformly, all N of a smaller set among those of a larger one.

    Facts: "near_duplicates_at", set -> {str(N): share}; the oracle's documents are "real".
    """
    recipe, corpus = context.recipe, context.corpus
    width = recipe.pairing.shingle_width
    key = derive_key(context.seed, "duplicates", "real text")

    def make(folder: Path) -> dict[str, Any]:
        tokenizer, oracle = corpus.open_tokenizer(), corpus.open("oracle")
        sets: dict[str, tuple[Any, Callable[[int], np.ndarray]]] = {
            "real": (oracle, lambda size: core.permute(len(oracle), key, np.arange(size)))
        }
        for arm, stage in synthesis.items():
            sets[arm] = (open_dataset(stage.folder / "synthetic", tokenizer), np.arange)
        written = {arm: len(sets[arm][0]) for arm in synthesis}
        sizes = sizes_to_measure(written, len(oracle), recipe.quality.duplicate_sizes)
        found = near_duplicates_at(
            sets,
            sizes,
            folder,
            width=width,
            threshold=_THRESHOLD,
            shards=context.shards,
            announce=context.workspace.announce,
        )
        return {"near_duplicates_at": found}

    return context.workspace.stage(
        context.name("duplicates"),
        inputs={
            "datasets": corpus.datasets,
            **{f"synthesis/{arm}": stage for arm, stage in synthesis.items()},
        },
        settings={
            "sizes": recipe.quality.duplicate_sizes,
            "shingle_width": width,
            "threshold": _THRESHOLD,
            "key": key,
        },
        make=make,
    )
