"""Embeddings and pair tables."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from megasbp.addressing import derive_key
from megasbp.corpus.tokenizer import Tokenizer
from megasbp.errors import InputError
from megasbp.experiment.context import UNIT_SPLITS, Context, Corpus, best_checkpoint, document_text
from megasbp.experiment.stages import StageResult
from megasbp.overlap.shingles import jaccard_pairs
from megasbp.pairing.embedders import open_embedder
from megasbp.pairing.neighbours import find_neighbours
from megasbp.pairing.pairs import hubness, select_pairs, similarity_histogram
from megasbp.pairing.permutation import permute_seeds
from megasbp.pairing.table import write_pairs
from megasbp.storage import publishing_file

# Pair table -> (split of the seed d1, split of the target d2). Only "train" is tuned on; "validation" chooses
# the learning rate and the steps; the other two measure what a pair is worth on text no model was trained on.
PAIR_TABLES = {
    "train": ("unique", "unique"),
    "validation": ("unique", "validation"),
    "new_target": ("unique", "test"),
    "new_seed_and_target": ("test", "test"),
}


def embed_stage(context: Context, baseline: StageResult) -> StageResult:
    """One unit vector per document of the unique, validation and test splits, in NAME.npy."""
    recipe, corpus = context.recipe, context.corpus
    from_checkpoint = recipe.pairing.embedder == "checkpoint"

    def make(folder: Path) -> dict[str, Any]:
        tokenizer = corpus.open_tokenizer()
        unique = _texts(corpus, "unique", tokenizer)
        embedder = open_embedder(
            recipe.pairing.embedder,
            fit_texts=unique,
            checkpoint=best_checkpoint(baseline) if from_checkpoint else None,
            tokenizer=tokenizer,
        )
        dimension = 0
        for name in UNIT_SPLITS:
            texts = unique if name == "unique" else _texts(corpus, name, tokenizer)
            vectors = embedder.embed(texts)
            dimension = vectors.shape[1]
            with publishing_file(folder / f"{name}.npy") as partial, open(partial, "wb") as file:
                np.save(file, vectors, allow_pickle=False)
        return {
            "fingerprint": embedder.fingerprint,
            "dimension": dimension,
            "parameters": embedder.parameters,
        }

    inputs: dict[str, StageResult | str] = {"datasets": corpus.datasets, "units": corpus.units}
    if from_checkpoint:
        inputs["baseline"] = baseline
    # Only the project's own checkpoint differs between seeds; outside embedders are shared by all of them.
    name = context.name("embed") if from_checkpoint else "embed"
    return context.workspace.stage(
        name, inputs=inputs, settings={"embedder": recipe.pairing.embedder}, make=make
    )


def pairs_stage(context: Context, embed: StageResult) -> StageResult:
    """The pair tables of `PAIR_TABLES`, each also with its seeds permuted (NAME.random.parquet)."""
    recipe, corpus, seed = context.recipe, context.corpus, context.seed

    def make(folder: Path) -> dict[str, Any]:
        facts: dict[str, Any] = {}
        for table_name, (seed_split, target_split) in PAIR_TABLES.items():
            table, drops, search = _select(context, embed, seed_split, target_split)
            if table.num_rows < 2:
                raise InputError(
                    f"pairing: {table.num_rows} pairs in the {table_name!r} table ({drops}); "
                    "lower pairing.minimum_similarity, raise pairing.neighbours, or give more documents"
                )
            limit = recipe.synthesizer.maximum_validation_pairs if table_name == "validation" else None
            limit = recipe.evaluation.maximum_value_pairs if target_split == "test" else limit
            table = _sample(table, limit, derive_key(seed, "pair sample", table_name))
            write_pairs(folder / f"{table_name}.parquet", table)
            permuted = permute_seeds(table, derive_key(seed, "random pairs", table_name))
            write_pairs(folder / f"{table_name}.random.parquet", permuted)
            facts[table_name] = {"pairs": table.num_rows, "drops": drops, "search": search}
            if table_name == "train":
                similarity = table["similarity"].to_numpy()
                facts["similarity_histogram"] = similarity_histogram(similarity)
                facts["hubness"] = hubness(table["target_doc"].to_numpy(), len(corpus.open_units("unique")))
        return facts

    return context.workspace.stage(
        context.name("pairs"),
        inputs={"datasets": corpus.datasets, "units": corpus.units, "embed": embed},
        settings={
            "pairing": recipe.pairing.model_dump(mode="json"),
            "validation_pairs": recipe.synthesizer.maximum_validation_pairs,
            "value_pairs": recipe.evaluation.maximum_value_pairs,
            "seed": seed,
        },
        make=make,
    )


def _texts(corpus: Corpus, name: str, tokenizer: Tokenizer) -> list[str]:
    dataset = corpus.open_units(name)
    return [document_text(dataset, document, tokenizer) for document in range(len(dataset))]


def _select(
    context: Context, embed: StageResult, seed_split: str, target_split: str
) -> tuple[pa.Table, dict[str, int], dict[str, Any]]:
    pairing, corpus = context.recipe.pairing, context.corpus
    seeds_dataset, targets_dataset = corpus.open_units(seed_split), corpus.open_units(target_split)
    # The held-out target looks for its seed; within one split either direction finds the same neighbours.
    same = seed_split == target_split
    query_role: Literal["seed", "target"] = "seed" if same else "target"
    query_split, found_split = (seed_split, target_split) if same else (target_split, seed_split)
    found = find_neighbours(
        embed.folder / f"{query_split}.npy",
        embed.folder / f"{found_split}.npy",
        pairing.neighbours,
        pairing.search,
        exclude_same_row=same,
        report=context.workspace.announce,
    )

    def jaccard(seeds: np.ndarray, targets: np.ndarray) -> np.ndarray:
        return jaccard_pairs(seeds_dataset, seeds, targets_dataset, targets, pairing.shingle_width)

    selection = select_pairs(
        found.similarity,
        found.row,
        jaccard,
        pairing,
        query_role=query_role,
        forbidden_same=corpus.unit_parents(seed_split) if same else None,
    )
    return selection.table, selection.drops, found.facts


def _sample(table: pa.Table, limit: int | None, key: int) -> pa.Table:
    if limit is None or table.num_rows <= limit:
        return table
    generator = np.random.Generator(np.random.Philox(key=key))
    return table.take(np.sort(generator.permutation(table.num_rows)[:limit]))
