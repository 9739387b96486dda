"""The second ledger: floating-point operations from the first document to the last arm.

The matched ledger counts tokens of the final model only. This one counts everything an arm made necessary, by
arithmetic over token counts: forward and backward 3 x the forward pass, causal attention. Operations, not
seconds: times go to timings.jsonl and into no result.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from megasbp.experiment.budget import SYNTHESIZER_OF_ARM, ArmPlan
from megasbp.experiment.context import Corpus
from megasbp.experiment.recipe import Recipe
from megasbp.experiment.stages import StageResult
from megasbp.model.flops import flops_per_token


@dataclass(frozen=True)
class Work:
    """Token counts of the stages that only an arm with synthetic text needs.

    Attributes:
        embedded_tokens: tokens that went through the embedder.
        embedder_parameters: of the embedder; 0 for TF-IDF.
        searched: multiply-adds of the neighbour search.
        tuned_tokens: input tokens of all tuning trials, d1 included.
        prefill_tokens, generated_tokens: of the generation, rejected documents included.
    """

    embedded_tokens: int
    embedder_parameters: int
    searched: int
    tuned_tokens: int
    prefill_tokens: int
    generated_tokens: int


def work_of(
    recipe: Recipe,
    corpus: Corpus,
    embed: StageResult | None,
    tunings: Iterable[StageResult],
    synthesis: StageResult,
) -> Work:
    """What an arm's synthetic text took.

    Args:
        embed: the embeddings; None where the recipe names no embedder.
        tunings: every tuning that led to the arm's synthesizer, each once.
        synthesis: the arm's.
    """
    unique = corpus.datasets.facts["unique"]
    about = embed.facts if embed else {"parameters": 0, "dimension": 0}
    searches = recipe.pairing.source == "neighbours"
    return Work(
        embedded_tokens=unique["tokens"],
        embedder_parameters=about["parameters"],
        searched=unique["documents"] ** 2 * about["dimension"] if searches else 0,
        tuned_tokens=sum(stage.facts["input_tokens"] for stage in tunings),
        prefill_tokens=synthesis.facts["prefill_tokens"],
        generated_tokens=synthesis.facts["generated_tokens"],
    )


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


def ledger(
    recipe: Recipe, plan: ArmPlan, work: Work | None, pretraining_tokens: int, sweep_tokens: int
) -> dict:
    """Both ledgers of one arm.

    Args:
        work: None for arms without synthetic text.
        pretraining_tokens: of the model that the synthesizer started from.
        sweep_tokens: of the tuning trials whose model is not used.

    Returns:
        matched_tokens; flops by stage; total_flops_owned (the pretrained model was there already) and
        total_flops_counted (it was made for this).
    """
    training = flops_per_token(recipe.model, recipe.training.sequence_length, causal=True)
    flops = {"final training": training * plan.total_tokens, "sweeps": training * sweep_tokens}
    if plan.arm in SYNTHESIZER_OF_ARM and work is not None:
        tuning = flops_per_token(recipe.model, recipe.synthesizer.context, causal=True)
        flops |= {
            "embedding": 2.0 * work.embedder_parameters * work.embedded_tokens,
            "search": 2.0 * work.searched,
            "initial pretraining": training * pretraining_tokens,
            "synthesizer tuning": tuning * work.tuned_tokens,
            "prefill": tuning / 3 * work.prefill_tokens,
            "decoding": tuning / 3 * work.generated_tokens,
        }
    total = sum(flops.values())
    return {
        "matched_tokens": plan.total_tokens,
        "flops": flops,
        "total_flops_owned": total - flops.get("initial pretraining", 0.0),
        "total_flops_counted": total,
    }
