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
class PairWork:
    """What tuning a synthesizer on pairs takes.

    Attributes:
        embedded_tokens: tokens that went through the embedder.
        embedder_parameters: of the embedder; 0 for TF-IDF.
        searched: multiply-adds of the neighbour search.
        tuned_tokens: input tokens of all tuning trials, d1 included.
    """

    embedded_tokens: int
    embedder_parameters: int
    searched: int
    tuned_tokens: int


@dataclass(frozen=True)
class Work:
    """What synthetic text takes.

    Attributes:
        pretraining_tokens: of the model that wrote it, before any tuning.
        context: positions of a row of the writer.
        prefill_tokens, generated_tokens: of the generation, rejected documents included.
        pairs: None where the writer was not tuned.
    """

    pretraining_tokens: int
    context: int
    prefill_tokens: int
    generated_tokens: int
    pairs: PairWork | None


def ledger(recipe: Recipe, plan: ArmPlan, work: Work | None, sweep_tokens: int) -> dict:
    """Both ledgers of one arm: each counts what this arm makes necessary, and nothing else.

    Args:
        work: None for arms without synthetic text.
        sweep_tokens: of the tuning trials whose model is not used.

    Returns:
        matched_tokens; flops by stage; total_flops_owned (the pretrained model was there already) and
        total_flops_counted (it was made for this).
    """
    training = flops_per_token(recipe.model, recipe.training.sequence_length, causal=True)
    flops = {"final training": training * plan.total_tokens, "sweeps": training * sweep_tokens}
    if work is not None:
        writing = flops_per_token(recipe.model, work.context, causal=True)
        if work.pairs is not None:
            flops |= {
                "embedding": 2.0 * work.pairs.embedder_parameters * work.pairs.embedded_tokens,
                "search": 2.0 * work.pairs.searched,
            }
        flops["initial pretraining"] = training * work.pretraining_tokens
        if work.pairs is not None:
            flops["synthesizer tuning"] = writing * work.pairs.tuned_tokens
        if work.prefill_tokens:
            flops["prefill"] = writing / 3 * work.prefill_tokens
        flops["decoding"] = writing / 3 * work.generated_tokens
    total = sum(flops.values())
    return {
        "matched_tokens": plan.total_tokens,
        "flops": flops,
        "total_flops_owned": total - flops.get("initial pretraining", 0.0),
        "total_flops_counted": total,
    }
