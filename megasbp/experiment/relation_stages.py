"""The synthetic text as the embedder sees it: its relation to the seeds it was written from."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from megasbp.addressing import derive_key
from megasbp.evaluation.relation import Candidates, Queries, relation
from megasbp.experiment.context import Context, best_checkpoint, open_dataset
from megasbp.experiment.embedding_runs import FITTED, SYNTHETIC, embed_dataset, open_vectors
from megasbp.experiment.measured_text import seeds_of
from megasbp.experiment.stages import StageResult
from megasbp.pairing.embedding_shards import agreed_facts, forget_embedder
from megasbp.pairing.table import read_pairs
from megasbp.storage import read_manifest


def embed_text_stage(
    context: Context, arm: str, synthesis: StageResult, embed: StageResult, baseline: StageResult | None
) -> StageResult:
    """Unit vectors of the first accepted documents of an arm.

    Args:
        embed: the corpus's vectors; their embedder has learnt what it needs there.
        baseline: of the embedder "checkpoint"; None for another.
    """
    limit = context.recipe.quality.documents

    def make(folder: Path) -> dict[str, Any]:
        dataset = open_dataset(synthesis.folder / "synthetic", context.corpus.open_tokenizer())
        manifest = read_manifest(embed.folder / FITTED)
        assert manifest is not None
        fitted = StageResult(embed.folder / FITTED, manifest)
        checkpoint = None if baseline is None else best_checkpoint(baseline)
        manifests = embed_dataset(context, dataset, folder / SYNTHETIC, fitted, checkpoint, limit)
        forget_embedder()
        return agreed_facts(manifests)

    return context.workspace.stage(
        context.name(f"embed-{arm}"),
        inputs={"synthesis": synthesis, "embed": embed},
        settings={"embedder": context.recipe.pairing.embedder, "documents": limit},
        make=make,
    )


def relation_stage(
    context: Context,
    pairs: StageResult,
    embed: StageResult,
    synthesis: Mapping[str, StageResult],
    embedded: Mapping[str, StageResult],
) -> StageResult:
    """Whether texts show which seed they were written from.

    Args:
        embed: vectors of the units, in which seeds and candidates are looked up.
        synthesis, embedded: of each arm whose writer reads seeds.

    Facts: "relation", as `megasbp.evaluation.relation` returns it, and the "embedder"'s fingerprint.
    """
    recipe = context.recipe
    key = derive_key(context.seed, "relation")

    def make(folder: Path) -> dict[str, Any]:
        vectors = {arm: open_vectors(stage, SYNTHETIC) for arm, stage in embedded.items()}
        seeds = {arm: seeds_of(synthesis[arm], np.arange(len(rows))) for arm, rows in vectors.items()}
        units = open_vectors(embed, "unique")
        partners = _partners(read_pairs(pairs.folder / "train.parquet"))
        related = _related(partners, context.corpus.unit_parents("unique"))
        found = relation(
            {arm: Queries(rows[:], seeds[arm]) for arm, rows in vectors.items()},
            partners["seed_doc"],
            units,
            Candidates(len(units), related, key),
            count=recipe.quality.candidates,
            resamples=recipe.evaluation.bootstrap_resamples,
        )
        return {"relation": found, "embedder": embed.facts["fingerprint"]}

    return context.workspace.stage(
        context.name("relation"),
        inputs={
            "pairs": pairs,
            "embed": embed,
            "units": context.corpus.units,
            **{f"synthesis/{arm}": stage for arm, stage in synthesis.items()},
            **{f"embedded/{arm}": stage for arm, stage in embedded.items()},
        },
        settings={
            "candidates": recipe.quality.candidates,
            "resamples": recipe.evaluation.bootstrap_resamples,
            "key": key,
        },
        make=make,
    )


def _partners(table: Any) -> dict[str, dict[int, np.ndarray]]:
    """By the role of a document in the pairs that were tuned on: its partners, ascending."""
    columns = {name: table[name].to_numpy() for name in ("seed_doc", "target_doc")}
    found = {}
    for role, other in (("seed_doc", "target_doc"), ("target_doc", "seed_doc")):
        order = np.lexsort((columns[other], columns[role]))
        documents, starts = np.unique(columns[role][order], return_index=True)
        groups = np.split(columns[other][order], starts[1:])
        found[role] = dict(zip(documents.tolist(), groups, strict=True))
    return found


def _related(
    partners: Mapping[str, Mapping[int, np.ndarray]], parents: np.ndarray
) -> Callable[[int], np.ndarray]:
    """Seed -> its partners in either direction, and the units of its own document."""
    order = np.argsort(parents, kind="stable")
    ascending, none = parents[order], np.empty(0, np.int64)

    def related(seed: int) -> np.ndarray:
        first, last = (np.searchsorted(ascending, parents[seed], side) for side in ("left", "right"))
        siblings = order[first:last]
        return np.concatenate([siblings, *(by_role.get(seed, none) for by_role in partners.values())])

    return related
