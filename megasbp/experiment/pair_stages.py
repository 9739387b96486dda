"""Embeddings and pair tables."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from megasbp.addressing import derive_key
from megasbp.corpus.tokenizer import Tokenizer
from megasbp.errors import InputError
from megasbp.experiment.context import UNIT_SPLITS, Context, Corpus, best_checkpoint, document_text
from megasbp.experiment.embedding_runs import FITTED, embed_dataset, open_vectors
from megasbp.experiment.pair_sources import PAIR_TABLES, VALUE_TABLES, Listed, listed_pairs
from megasbp.experiment.stages import StageResult
from megasbp.overlap.shingles import jaccard_pairs
from megasbp.pairing.config import PairingConfig
from megasbp.pairing.embedders import FITTED_EMBEDDERS, open_embedder
from megasbp.pairing.embedding_shards import agreed_facts, forget_embedder
from megasbp.pairing.hold_out import hold_out_targets
from megasbp.pairing.neighbours import find_neighbours
from megasbp.pairing.pairs import (
    PairSelection,
    hubness,
    in_degree_histogram,
    pair_similarity,
    select_listed,
    select_pairs,
    similarity_histogram,
)
from megasbp.pairing.permutation import permute_seeds
from megasbp.pairing.table import write_pairs
from megasbp.pairing.vectors import Vectors
from megasbp.storage import hash_file, hash_folder, publish_manifest, publishing_folder, read_manifest

# Of the pairs that a source has for tuning, what is held out at most when it has none for validation.
_HELD_OUT_SHARE = 0.1
# Texts that TF-IDF and the centre of the own-model embeddings are fitted on, at most.
_MOST_FIT_TEXTS = 200_000


def embed_stage(context: Context, baseline: StageResult | None) -> StageResult | None:
    """One unit vector per unit of the unique, validation and test splits, in shards below NAME.

    None when the recipe names no embedder. With the embedder "checkpoint" it is that of `baseline`.
    """
    recipe, corpus = context.recipe, context.corpus
    if recipe.pairing.embedder == "none":
        return None

    def make(folder: Path) -> dict[str, Any]:
        checkpoint = None if baseline is None else best_checkpoint(baseline)
        fitted = _fit_embedder(context, folder / FITTED, checkpoint)
        manifests = []
        for name in UNIT_SPLITS:
            manifests += embed_dataset(context, corpus.open_units(name), folder / name, fitted, checkpoint)
        forget_embedder()
        return agreed_facts(manifests)

    inputs: dict[str, StageResult | str] = {"datasets": corpus.datasets, "units": corpus.units}
    if Path(recipe.pairing.embedder).is_dir():
        inputs["embedder"] = hash_folder(Path(recipe.pairing.embedder))
    if baseline is not None:
        inputs["baseline"] = baseline
    # Only the project's own checkpoint differs between seeds; outside embedders are shared by all of them.
    name = "embed" if baseline is None else context.name("embed")
    return context.workspace.stage(
        name, inputs=inputs, settings={"embedder": recipe.pairing.embedder}, make=make
    )


def _fit_embedder(context: Context, folder: Path, checkpoint: Path | None) -> StageResult:
    """What the embedder learns from texts of the unique split, published in `folder`."""
    manifest = read_manifest(folder)
    if manifest is None:
        corpus, name = context.corpus, context.recipe.pairing.embedder
        tokenizer = corpus.open_tokenizer()
        with publishing_folder(folder) as partial:
            if name in FITTED_EMBEDDERS:
                embedder = open_embedder(
                    name, fit_texts=_fit_texts(corpus, tokenizer), checkpoint=checkpoint, tokenizer=tokenizer
                )
                embedder.save_fit(partial)
            manifest = publish_manifest(partial, "fitted embedder", inputs={}, settings={})
    return StageResult(folder, manifest)


def _fit_texts(corpus: Corpus, tokenizer: Tokenizer) -> list[str]:
    """Evenly spaced units of the unique split."""
    dataset = corpus.open_units("unique")
    step = -(-len(dataset) // _MOST_FIT_TEXTS)
    return [document_text(dataset, document, tokenizer) for document in range(0, len(dataset), step)]


def continuation_context(context: Context, parts: Corpus) -> Context:
    """The same run, whose pairs are beginnings of documents and what follows them.

    Args:
        parts: its corpus, in parts of documents.
    """
    given = context.recipe.pairing
    pairing = PairingConfig(
        source="continuation",
        embedder="none",
        maximum_jaccard=given.maximum_jaccard,
        shingle_width=given.shingle_width,
        maximum_per_seed=given.maximum_per_seed,
        maximum_per_target=given.maximum_per_target,
    )
    recipe = context.recipe.model_copy(update={"pairing": pairing})
    return replace(context, recipe=recipe, corpus=parts)


def pairs_stage(context: Context, embed: StageResult | None, name: str = "pairs") -> StageResult:
    """The pair tables that the source can fill, each also with its seeds permuted (NAME.random.parquet).

    Facts: by table its pairs, drops and splits; "without", table -> why the source has no pairs for it; of
    the pairs that are tuned on, histograms of similarity and in-degree, and hubness.
    """
    recipe, corpus, seed = context.recipe, context.corpus, context.seed
    neighbours = recipe.pairing.source == "neighbours"
    listing = recipe.pairing.file()

    def make(folder: Path) -> dict[str, Any]:
        # Of an interrupted stage it stays, and the search goes on there.
        work = folder / "search"
        found = _find(context, embed, work)
        if work.exists():
            shutil.rmtree(work)
        facts: dict[str, Any] = {"without": found.without, "reading": found.reading}
        for table_name, whole in found.tables.items():
            limit = recipe.synthesizer.maximum_validation_pairs if table_name == "validation" else None
            limit = recipe.evaluation.maximum_value_pairs if table_name in VALUE_TABLES else limit
            table = _sample(whole, limit, derive_key(seed, "pair sample", table_name))
            try:
                permuted = permute_seeds(table, derive_key(seed, "random pairs", table_name))
            except InputError as error:
                if neighbours or table_name not in VALUE_TABLES:
                    raise
                found.without[table_name] = f"no random control for its {table.num_rows} pairs ({error})"
                continue
            write_pairs(folder / f"{table_name}.parquet", table)
            write_pairs(folder / f"{table_name}.random.parquet", permuted)
            facts[table_name] = {
                "pairs": table.num_rows,
                "drops": found.drops[table_name],
                "splits": found.splits[table_name],
                "search": found.search.get(table_name),
            }
            if table_name == "train":
                facts |= _shape(table, found.offered_targets, len(corpus.open_units("unique")))
        return facts

    inputs: dict[str, StageResult | str] = {"datasets": corpus.datasets, "units": corpus.units}
    if embed is not None:
        inputs["embed"] = embed
    if listing is not None:
        inputs |= {"file": hash_file(listing), "split": corpus.split}
    return context.workspace.stage(
        context.name(name),
        inputs=inputs,
        settings={
            "pairing": recipe.pairing.deciding(),
            "validation_pairs": recipe.synthesizer.maximum_validation_pairs,
            "value_pairs": recipe.evaluation.maximum_value_pairs,
            "seed": seed,
        },
        make=make,
    )


@dataclass
class _Found:
    """The pair tables of a source.

    Attributes:
        tables, drops, splits: by name of the table.
        without: table -> why there is none, or where its pairs come from instead.
        reading: rows of the source's file by what became of them.
        search: table -> how its neighbours were searched for, and the recall (`Neighbours.facts`).
        offered_targets: of the candidates of the train table that only the caps could drop.
    """

    tables: dict[str, pa.Table]
    drops: dict[str, dict[str, int]]
    splits: dict[str, tuple[str, str]]
    without: dict[str, str]
    reading: dict[str, int]
    search: dict[str, dict[str, Any]]
    offered_targets: np.ndarray


def _find(context: Context, embed: StageResult | None, work: Path) -> _Found:
    """Every table of the recipe's source.

    Args:
        work: folder of the searches, one for each table.

    Raises:
        InputError: fewer than two pairs for tuning, or in a table that neighbours always have.
    """
    pairing = context.recipe.pairing
    listed = Listed(splits=dict(PAIR_TABLES))
    search: dict[str, dict[str, Any]] = {}
    if pairing.source == "neighbours":
        assert embed is not None
        searched = {
            name: _select(context, embed, work / name, *splits) for name, splits in PAIR_TABLES.items()
        }
        selections = {name: selection for name, (selection, _) in searched.items()}
        search = {name: facts for name, (_, facts) in searched.items()}
        needed, mend = set(PAIR_TABLES), "lower pairing.minimum_similarity, raise pairing.neighbours,"
    else:
        listed = listed_pairs(context)
        vectors = {}
        if embed is not None:
            vectors = {name: open_vectors(embed, name) for name in UNIT_SPLITS}
        selections = {
            name: _select_listed(context, vectors, *listed.splits[name], *pairs)
            for name, pairs in listed.pairs.items()
        }
        needed, mend = {"train"}, "give the source more pairs of documents of the unique split,"
    tables = {}
    for name in PAIR_TABLES:
        selection = selections.get(name)
        if selection is not None and selection.table.num_rows >= 2:
            tables[name] = selection.table
        elif name in needed:
            what = f"{selection.table.num_rows} pairs" if selection else "no pairs"
            dropped = f" ({selection.drops})" if selection else ""
            raise InputError(f"pairing: {what} in the {name!r} table{dropped}; {mend} or give more documents")
        elif selection is not None:
            listed.without[name] = f"{selection.table.num_rows} pairs are left ({selection.drops})"
    drops = {name: selections[name].drops for name in tables}
    if "validation" not in tables:
        _hold_out(context, tables, listed)
        drops["validation"] = {}
    offered = selections["train"].offered_targets
    return _Found(tables, drops, listed.splits, listed.without, listed.reading, search, offered)


def _hold_out(context: Context, tables: dict[str, pa.Table], listed: Listed) -> None:
    """Takes the validation pairs from those for tuning: all pairs of some targets."""
    most = context.recipe.synthesizer.maximum_validation_pairs
    wanted = min(most, max(2, int(_HELD_OUT_SHARE * tables["train"].num_rows)))
    key = derive_key(context.seed, "held-out pairs")
    tables["train"], tables["validation"] = hold_out_targets(tables["train"], wanted, key)
    kept, held = tables["train"].num_rows, tables["validation"].num_rows
    if min(kept, held) < 2:
        raise InputError(
            f"pairing: {kept} pairs for tuning and {held} held out; give the source more pairs of documents "
            "of the unique split"
        )
    listed.splits["validation"] = listed.splits["train"]
    listed.without["validation"] = (
        f"{listed.without['validation']}; {held} pairs, all those of some targets, were held out of tuning "
        "instead: the baseline has read their texts"
    )


def _shape(table: pa.Table, offered_targets: np.ndarray, documents: int) -> dict[str, Any]:
    """Histograms and hubness of the pairs that are tuned on, and of what was offered to the caps."""
    targets = table["target_doc"].to_numpy()
    return {
        "similarity_histogram": similarity_histogram(table["similarity"].to_numpy()),
        "hubness": hubness(targets, documents),
        "hubness_before_caps": hubness(offered_targets, documents),
        "in_degree": in_degree_histogram(targets, documents),
        "in_degree_before_caps": in_degree_histogram(offered_targets, documents),
    }


def _select(
    context: Context, embed: StageResult, work: Path, seed_split: str, target_split: str
) -> tuple[PairSelection, dict[str, Any]]:
    pairing, corpus = context.recipe.pairing, context.corpus
    seeds_dataset, targets_dataset = corpus.open_units(seed_split), corpus.open_units(target_split)
    # The held-out target looks for its seed; within one split either direction finds the same neighbours.
    same = seed_split == target_split
    query_role: Literal["seed", "target"] = "seed" if same else "target"
    query_split, found_split = (seed_split, target_split) if same else (target_split, seed_split)
    found = find_neighbours(
        open_vectors(embed, query_split),
        open_vectors(embed, found_split),
        pairing.neighbours,
        pairing.search,
        exclude_same_row=same,
        work=work,
        shards=context.shards,
        announce=context.workspace.announce,
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
    return selection, found.facts


def _select_listed(
    context: Context,
    vectors: dict[str, Vectors],
    seed_split: str,
    target_split: str,
    seeds: np.ndarray,
    targets: np.ndarray,
) -> PairSelection:
    pairing, corpus = context.recipe.pairing, context.corpus
    seeds_dataset, targets_dataset = corpus.open_units(seed_split), corpus.open_units(target_split)

    def jaccard(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return jaccard_pairs(seeds_dataset, first, targets_dataset, second, pairing.shingle_width)

    def similarity(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return pair_similarity(vectors[seed_split], vectors[target_split], first, second)

    one_document = pairing.source == "continuation" or seed_split != target_split
    return select_listed(
        seeds,
        targets,
        jaccard,
        pairing,
        similarity=similarity if vectors else None,
        forbidden_same=None if one_document else corpus.unit_parents(seed_split),
        source=pairing.source,
    )


def _sample(table: pa.Table, limit: int | None, key: int) -> pa.Table:
    if limit is None or table.num_rows <= limit:
        return table
    generator = np.random.Generator(np.random.Philox(key=key))
    return table.take(np.sort(generator.permutation(table.num_rows)[:limit]))
