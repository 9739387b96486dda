"""The topics of the synthetic text, beside those of real text."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from megasbp.addressing import derive_key
from megasbp.evaluation.topics import Topics, most_shifted, topic_shift
from megasbp.experiment.context import Context, document_text
from megasbp.experiment.embedding_runs import SYNTHETIC, open_vectors
from megasbp.experiment.stages import StageResult

# Unique documents that topics are found on and compared with, at most; evenly spaced.
_MOST_UNIQUE = 200_000
# Topics that the report lists, and characters of the text that stands for an untitled one.
_LISTED, _BEGINNING = 8, 60


def topics_stage(context: Context, embed: StageResult, embedded: Mapping[str, StageResult]) -> StageResult:
    """How far the texts of arms, and real held-out text, lie from the topics of the unique text.

    Args:
        embed: vectors of the units.
        embedded: vectors of each arm's first accepted documents.

    Facts: "topics", as `topic_shift` returns it, with "most_shifted": topics by their most typical unique
    document, and their share in each set. Held-out text is "real".
    """
    recipe = context.recipe
    key = derive_key(context.seed, "topics")

    def make(folder: Path) -> dict[str, Any]:
        units = open_vectors(embed, "unique")
        rows = np.arange(0, len(units), -(-len(units) // _MOST_UNIQUE))
        unique = units[rows]
        topics = Topics(unique, recipe.quality.topics, key)
        vectors = {
            "real": np.concatenate([open_vectors(embed, split)[:] for split in ("validation", "test")]),
            **{arm: open_vectors(stage, SYNTHETIC)[:] for arm, stage in embedded.items()},
        }
        whole, sets = topics.of(unique), {name: topics.of(found) for name, found in vectors.items()}
        count = len(topics.centres)
        listed = [
            {
                "example": _example(context, int(rows[_nearest(unique, topics.centres[topic])])),
                "shares": {
                    name: float(np.mean(found == topic)) for name, found in {"unique": whole, **sets}.items()
                },
            }
            for topic in most_shifted(whole, sets, count, _LISTED)
        ]
        return {"topics": {**topic_shift(whole, sets, count, key), "most_shifted": listed}}

    return context.workspace.stage(
        context.name("topics"),
        inputs={
            "datasets": context.corpus.datasets,
            "units": context.corpus.units,
            "embed": embed,
            **{f"embedded/{arm}": stage for arm, stage in embedded.items()},
        },
        settings={"topics": recipe.quality.topics, "key": key},
        make=make,
    )


def _nearest(vectors: np.ndarray, centre: np.ndarray) -> int:
    return int(np.argmin(((vectors - centre) ** 2).sum(axis=1)))


def _example(context: Context, unit: int) -> str:
    """Title of a unique unit's document, or the beginning of the unit."""
    corpus = context.corpus
    title = corpus.column("unique", "title")[corpus.unit_parents("unique")[unit]]
    if title:
        return str(title)
    text = document_text(corpus.open_units("unique"), unit, corpus.open_tokenizer())
    return " ".join(text.split())[:_BEGINNING]
