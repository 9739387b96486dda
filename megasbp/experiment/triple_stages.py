"""Triples to read: a seed document, its nearest true partner, and what the synthesizer wrote from it."""

from collections.abc import Mapping, Sequence
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from megasbp.errors import InputError
from megasbp.experiment.context import Context, document_text, open_dataset
from megasbp.experiment.stages import StageResult
from megasbp.experiment.synthesizer_stages import synthesizer_checkpoint
from megasbp.overlap.copied import as_characters, copied_stretches
from megasbp.overlap.ngram_index import NgramIndex
from megasbp.pairing.table import read_pairs
from megasbp.synthesis.generator import load_generator
from megasbp.synthesis.provenance import text_hash
from megasbp.synthesis.regenerate import regenerate

# Shown as copied from this many tokens on: shorter runs are common phrases.
_COPIED_TOKENS = 8
# One in so many triples is a dropped document, where there are any.
_DROPPED_EVERY = 4

Row = dict[str, Any]


def triples_stage(
    context: Context, pairs: StageResult, synthesis: StageResult, synthesizer: StageResult
) -> StageResult:
    """SBP's first documents whose seeds have a partner, in the order of the requests, some of them dropped.

    The text of dropped documents is not kept: they are written again from their provenance. Where their
    bytes are not promised, because the synthesis ran elsewhere, none is shown, and the facts say why.

    Facts: "triples", as in docs/results-schema.md; "without_dropped": why none of these is shown, or None.
    """
    count = context.recipe.evaluation.triples

    def make(folder: Path) -> dict[str, Any]:
        table = read_pairs(pairs.folder / "train.parquet")
        seeds = pc.unique(table["seed_doc"])
        accepted, dropped_rows = _first_rows(synthesis.folder, seeds, count, count // _DROPPED_EVERY)
        reason = None
        try:
            tokens = _written_again(context, synthesizer, dropped_rows)
        except InputError as error:
            context.workspace.announce(f"triples: no dropped document is shown ({error})")
            reason, tokens, dropped_rows = str(error), {}, []
        rows = accepted[: count - len(dropped_rows)]
        generated = open_dataset(synthesis.folder / "synthetic", context.corpus.open_tokenizer())
        tokens |= {row["request"]: generated.document(row["document"])[1:-1] for row in rows}
        rows = sorted([*rows, *dropped_rows], key=lambda row: row["request"])
        partners = _nearest_partners(table, {row["seed_doc"] for row in rows})
        return {"triples": _triples(context, rows, tokens, partners), "without_dropped": reason}

    return context.workspace.stage(
        context.name("triples"),
        inputs={"pairs": pairs, "synthesis": synthesis, "units": context.corpus.units},
        settings={"count": count, "copied_tokens": _COPIED_TOKENS},
        make=make,
    )


def _first_rows(folder: Path, seeds: pa.Array, accepted: int, dropped: int) -> tuple[list[Row], list[Row]]:
    """The first so many accepted, and dropped, rows of a synthetic corpus with one of these seeds.

    No more of its provenance is read, a batch at a time.
    """
    kept: list[Row] = []
    others: list[Row] = []
    for batch in pq.ParquetFile(folder / "provenance.parquet").iter_batches():
        related = batch.filter(pc.is_in(batch["seed_doc"], seeds))
        kept += related.filter(related["accepted"]).slice(0, accepted - len(kept)).to_pylist()
        others += related.filter(pc.invert(related["accepted"])).slice(0, dropped - len(others)).to_pylist()
        if (len(kept), len(others)) == (accepted, dropped):
            break
    return kept, others


def _written_again(context: Context, synthesizer: StageResult, rows: Sequence[Row]) -> dict[int, np.ndarray]:
    """Tokens of each row's document, by its request."""
    config, device = context.recipe.synthesis, context.runtime.device
    checkpoint = synthesizer_checkpoint(synthesizer)
    model = load_generator(checkpoint, device, config.precision, config.batch_invariant)
    completions = regenerate(
        rows,
        model=model,
        tokenizer=context.corpus.open_tokenizer(),
        seed_dataset=context.corpus.open_units("unique"),
        checkpoint_hash=synthesizer.digest,
    )
    for row, completion in zip(rows, completions, strict=True):
        if text_hash(completion.tokens) != row["text_hash"]:
            raise InputError(f"request {row['request']} was written again with other tokens")
    return {row["request"]: one.tokens for row, one in zip(rows, completions, strict=True)}


def _nearest_partners(table: pa.Table, seeds: set[int]) -> dict[int, Row]:
    """The most similar pair of each seed; the first one where similarity is unknown (nan)."""
    nearest: dict[int, Row] = {}
    for row in table.filter(pc.is_in(table["seed_doc"], pa.array(sorted(seeds)))).to_pylist():
        held = nearest.setdefault(row["seed_doc"], row)
        if row["similarity"] > held["similarity"]:
            nearest[row["seed_doc"]] = row
    return nearest


def _triples(
    context: Context,
    rows: Sequence[Row],
    tokens: Mapping[int, np.ndarray],
    partners: Mapping[int, Row],
) -> list[Row]:
    corpus, tokenizer = context.corpus, context.corpus.open_tokenizer()
    units, parents = corpus.open_units("unique"), corpus.unit_parents("unique")
    titles = corpus.column("unique", "title")
    whole_corpus = NgramIndex.build(tokens.values(), _COPIED_TOKENS).within([corpus.open("unique")])
    made = []
    for row in rows:
        seed, pair, written = row["seed_doc"], partners[row["seed_doc"]], tokens[row["request"]]
        own = NgramIndex.build([units.document(seed)[1:-1]], _COPIED_TOKENS)
        made.append(
            {
                "seed_title": titles[parents[seed]],
                "seed": document_text(units, seed, tokenizer),
                "neighbour": document_text(units, pair["target_doc"], tokenizer),
                "synthetic": tokenizer.decode(written),
                "copied": {
                    name: as_characters(copied_stretches(written, index), written, tokenizer.decode)
                    for name, index in (("seed", own), ("corpus", whole_corpus))
                },
                "similarity": None if isnan(pair["similarity"]) else round(float(pair["similarity"]), 4),
                "draw": row["draw"],
                "accepted": row["accepted"],
                "filters": {"dropped by": row["dropped_by"]} if row["dropped_by"] else {},
            }
        )
    return made
