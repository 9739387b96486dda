"""The second ledger: floating-point operations from the first document to the last arm.

The matched ledger counts tokens of the final model only. This one counts everything an arm made necessary, by
arithmetic over token counts: forward and backward 3 x the forward pass, causal attention. Operations, not
seconds: times go to timings.jsonl and into no result.
"""

from dataclasses import dataclass

from megasbp.experiment.budget import ArmPlan
from megasbp.experiment.recipe import Recipe
from megasbp.model.flops import flops_per_token


@dataclass(frozen=True)
class Search:
    """What finding pairs by similarity takes.

    Attributes:
        embedded_tokens: tokens that went through the embedder.
        embedder_parameters: of the embedder; 0 for TF-IDF.
        multiply_adds: of the neighbour search.
    """

    embedded_tokens: int
    embedder_parameters: int
    multiply_adds: int


@dataclass(frozen=True)
class Writing:
    """What writing synthetic text takes, once the baseline is trained.

    Attributes:
        context: positions of a row of the writer.
        tuned_tokens: input tokens of the writer's tuning, d1 included; 0 where the untuned baseline writes.
        swept_tokens: of the tunings that only chose its learning rate and steps, which are sweeps.
        prefill_tokens, generated_tokens: of the generation, rejected documents included.
    """

    context: int
    tuned_tokens: int
    swept_tokens: int
    prefill_tokens: int
    generated_tokens: int


@dataclass(frozen=True)
class Work:
    """What an arm takes besides its own training.

    Attributes:
        pretraining_tokens: of the model that writes or embeds; 0 where none does.
        search: None where no pair is found by similarity.
        writing: None where nothing is written.
        first_round_flops: what an earlier round took, its arm included, without the pretraining; 0 where
            there was none.
    """

    pretraining_tokens: int = 0
    search: Search | None = None
    writing: Writing | None = None
    first_round_flops: float = 0.0


def equal_steps(recipe: Recipe, spent: dict, reading: str) -> int:
    """Optimiser steps of a baseline that spends on training what another arm spends in all.

    Args:
        spent: the other arm's `ledger`.
        reading: "owned" or "counted".

    Returns:
        Rounded down to whole steps; sweeps are left out on both sides.
    """
    step = recipe.training.global_batch * recipe.training.sequence_length
    training = flops_per_token(recipe.model, recipe.training.sequence_length, causal=True)
    return int((spent[f"total_flops_{reading}"] - spent["flops"]["sweeps"]) // (training * step))


def ledger(recipe: Recipe, plan: ArmPlan, work: Work, sweep_tokens: int) -> dict:
    """Both ledgers of one arm: each counts what this arm makes necessary, and nothing else.

    Args:
        sweep_tokens: of the arms' trials whose model is not used; those of writers are in `work`.

    Returns:
        matched_tokens; flops by stage; total_flops_owned (the pretrained model was there already) and
        total_flops_counted (it was made for this).
    """
    training = flops_per_token(recipe.model, recipe.training.sequence_length, causal=True)
    flops = {"final training": training * plan.total_tokens, "sweeps": training * sweep_tokens}
    if work.search is not None:
        flops["embedding"] = 2.0 * work.search.embedder_parameters * work.search.embedded_tokens
        flops["search"] = 2.0 * work.search.multiply_adds
    if work.pretraining_tokens:
        flops["initial pretraining"] = training * work.pretraining_tokens
    if work.writing is not None:
        writing = flops_per_token(recipe.model, work.writing.context, causal=True)
        if work.writing.tuned_tokens:
            flops["synthesizer tuning"] = writing * work.writing.tuned_tokens
        flops["sweeps"] += writing * work.writing.swept_tokens
        if work.writing.prefill_tokens:
            flops["prefill"] = writing / 3 * work.writing.prefill_tokens
        flops["decoding"] = writing / 3 * work.writing.generated_tokens
    if work.first_round_flops:
        flops["first round"] = work.first_round_flops
    total = sum(flops.values())
    return {
        "matched_tokens": plan.total_tokens,
        "flops": flops,
        "total_flops_owned": total - flops.get("initial pretraining", 0.0),
        "total_flops_counted": total,
    }
