"""The stages that ask the gates of one seed."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from megasbp.data.indexed_dataset import IndexedDataset
from megasbp.evaluation.quality import distinct_share
from megasbp.experiment.context import Context, open_dataset
from megasbp.experiment.gates import (
    Gate,
    baseline_gate,
    copying_gate,
    describe,
    pair_value_gate,
    round_gate,
)
from megasbp.experiment.stages import StageResult

# Of the runs of tokens whose variety is compared between rounds.
_DISTINCT_WIDTH = 4
# Tokens of each round that it is counted in, at most: they and their hashes are held in memory.
_MOST_TOKENS = 100_000_000


def gates_stage(
    context: Context, baseline: StageResult, pair_value: StageResult, quality: Mapping[str, StageResult]
) -> StageResult:
    """Asks every gate, and says what it found.

    Args:
        quality: "real", and each arm with synthetic text.

    Facts: "gates", as `gates_of` reads them.
    """
    config = context.recipe.gates

    def make(folder: Path) -> dict[str, Any]:
        copies = {
            name: stage.facts["quality"]["corpus_copy"]["mean_coverage"] for name, stage in quality.items()
        }
        real = copies.pop("real")
        gates = [
            pair_value_gate(pair_value.facts["tables"]),
            copying_gate(copies, real, config.maximum_excess_copy),
            baseline_gate(baseline.facts["history"], config.saturated_below),
        ]
        for gate in gates:
            context.workspace.announce(f"{context.name('gates')}: {describe(gate)}")
        return {"gates": [asdict(gate) for gate in gates]}

    return context.workspace.stage(
        context.name("gates"),
        inputs={
            "baseline": baseline,
            "pair_value": pair_value,
            **{f"quality/{name}": stage for name, stage in quality.items()},
        },
        # What a closed gate does is no part of what was found.
        settings=config.model_dump(mode="json", exclude={"closed", "maximum_diversity_loss"}),
        make=make,
    )


def round_gate_stage(
    context: Context, synthesizers: Mapping[str, StageResult], synthesis: Mapping[str, StageResult]
) -> StageResult:
    """Asks whether a second round pays, and says what it found.

    Args:
        synthesizers, synthesis: of "first" and "second".

    Facts: "gates", as `gates_of` reads them.
    """
    limit = context.recipe.gates.maximum_diversity_loss

    def make(folder: Path) -> dict[str, Any]:
        tokenizer = context.corpus.open_tokenizer()
        texts = {
            name: open_dataset(stage.folder / "synthetic", tokenizer) for name, stage in synthesis.items()
        }
        # The last shard is kept whole, so one is longer, and longer text has fewer distinct runs.
        tokens = min(_MOST_TOKENS, *(text.tokens for text in texts.values()))
        first, second = (
            {
                "pair_loss": synthesizers[name].facts["best_validation_loss"],
                "distinct": distinct_share(first_documents(texts[name], tokens), _DISTINCT_WIDTH),
            }
            for name in ("first", "second")
        )
        gate = round_gate(first, second, limit)
        context.workspace.announce(f"{context.name('gate-second_round')}: {describe(gate)}")
        return {"gates": [asdict(gate)]}

    return context.workspace.stage(
        context.name("gate-second_round"),
        inputs={
            f"{kind}/{name}": stage
            for kind, stages in (("synthesizer", synthesizers), ("synthesis", synthesis))
            for name, stage in stages.items()
        },
        settings={"maximum_diversity_loss": limit},
        make=make,
    )


def first_documents(text: IndexedDataset, tokens: int) -> list[np.ndarray]:
    """The first documents, without bos and eos, that hold so many tokens with them; the last one is cut."""
    ends = np.cumsum(text.lengths)
    whole = int(np.searchsorted(ends, tokens, side="right"))
    documents = [text.document(document)[1:-1] for document in range(whole)]
    left = tokens - int(ends[whole - 1] if whole else 0)
    if left > 1:
        documents.append(text.document(whole)[1:left])
    return documents


def gates_of(stage: StageResult) -> list[Gate]:
    """The gates that a finished stage found."""
    return [Gate(**gate) for gate in stage.facts["gates"]]
