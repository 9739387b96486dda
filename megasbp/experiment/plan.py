"""`megasbp plan`: what a recipe will do, by arithmetic, before anything runs."""

from typing import Any

from megasbp.experiment.arm_stages import trial_grid
from megasbp.experiment.budget import SYNTHESIZER_OF_ARM, plan_arm, synthetic_need
from megasbp.experiment.corpus_stages import make_corpus
from megasbp.experiment.disk import estimate_disk
from megasbp.experiment.recipe import Recipe
from megasbp.experiment.stages import MissingStage, Workspace
from megasbp.model.flops import flops_per_token, parameter_count


def plan(recipe: Recipe) -> dict[str, Any]:
    """Parameters, tokens per source, epochs, steps, FLOPs and disk, per arm and stage.

    Token counts are exact when the run's datasets exist, otherwise estimated from
    `budget.expected_tokens_per_document` (`tokens_are` says which).
    """
    tokens, exact = _tokens(recipe)
    tokens["synthetic"] = synthetic_need(recipe)
    per_token = {
        "full": flops_per_token(recipe.model, recipe.training.sequence_length, causal=False),
        "causal": flops_per_token(recipe.model, recipe.training.sequence_length, causal=True),
    }
    arms = {}
    for arm in recipe.budget.arms:
        arm_plan = plan_arm(arm, recipe, tokens)
        arms[arm] = {
            "steps": arm_plan.steps,
            "tokens": arm_plan.tokens,
            "epochs": arm_plan.epochs,
            "synthetic_share": arm_plan.synthetic_share,
            "flops": per_token["causal"] * arm_plan.total_tokens,
        }
    disk = estimate_disk(recipe)
    return {
        "name": recipe.name,
        "parameters": parameter_count(recipe.model),
        "parameters_without_embedding": parameter_count(recipe.model, embedding=False),
        "flops_per_token": per_token,
        "tokens_are": "exact" if exact else "estimated",
        "corpus_tokens": tokens,
        "batch_tokens": recipe.training.global_batch * recipe.training.sequence_length,
        "trials": len(trial_grid(recipe)),
        "arms": arms,
        "generation": _generation(recipe),
        "disk": {
            "datasets": disk.datasets,
            "embeddings": disk.embeddings,
            "checkpoints": disk.checkpoints,
            "synthetic": disk.synthetic,
            "total": disk.total,
        },
    }


def _tokens(recipe: Recipe) -> tuple[dict[str, int], bool]:
    if all(path.exists() for path in recipe.corpus.paths):
        try:
            corpus = make_corpus(recipe, Workspace(recipe.folder, lambda line: None, build=False))
        except MissingStage:
            pass
        else:
            return {name: corpus.datasets.facts[name]["tokens"] for name in ("unique", "oracle")}, True
    per_document = recipe.budget.expected_tokens_per_document
    counts = {"unique": recipe.corpus.unique, "oracle": recipe.corpus.oracle}
    return {name: round(count * per_document) for name, count in counts.items()}, False


def _generation(recipe: Recipe) -> dict[str, float]:
    """Prefill of the seeds and decoding, if seeds are as long as d2 and every document is accepted."""
    arms = sum(arm in SYNTHESIZER_OF_ARM for arm in recipe.budget.arms)
    need = synthetic_need(recipe)
    forward = flops_per_token(recipe.model, recipe.synthesizer.context, causal=True) / 3
    return {"arms": arms, "tokens_per_arm": need, "flops_per_arm_at_least": 2 * need * forward}
