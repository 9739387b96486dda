"""`megasbp plan`: what a recipe will do, by arithmetic, before anything runs."""

from typing import Any

from megasbp.experiment.arm_stages import source_tokens, trial_grid
from megasbp.experiment.arms import is_seeded, written_arms
from megasbp.experiment.budget import budget_arms, multiple_source, plan_arm, synthetic_need
from megasbp.experiment.corpus_stages import make_corpus
from megasbp.experiment.disk import estimate_disk
from megasbp.experiment.downstream_cost import downstream_cost
from megasbp.experiment.recipe import Recipe
from megasbp.experiment.stages import MissingStage, Workspace
from megasbp.model.flops import flops_per_token, parameter_count


def plan(recipe: Recipe) -> dict[str, Any]:
    """Parameters, tokens per source, epochs, steps, FLOPs and disk, per arm on the budget and stage.

    Arms and stages are those of one seed; `flops` is all of it, every seed and the trials, but for baselines
    that are trained with equal operations: what those are is known only later.

    Token counts are exact when the run's datasets exist, otherwise estimated from
    `budget.expected_tokens_per_document` (`tokens_are` says which); those of rows that are packed later are
    estimated in any case (`estimated`, by arm).
    """
    tokens, exact = _tokens(recipe)
    need = synthetic_need(recipe)
    tokens["synthetic"] = need
    # Rows of neighbours are no more than are drawn, or than all pairs make; seeds may be as long as d2.
    pairs = 2 * recipe.pairing.maximum_per_seed * tokens["unique"]
    packed = {"neighbours": min(need, pairs), "seeded": 2 * need}
    per_token = {
        "full": flops_per_token(recipe.model, recipe.training.sequence_length, causal=False),
        "causal": flops_per_token(recipe.model, recipe.training.sequence_length, causal=True),
    }
    arms: dict[str, dict[str, Any]] = {}
    grid = trial_grid(recipe)
    # The largest share that may be chosen.
    share = max(setting.budget_share for setting in grid)
    for arm in budget_arms(recipe):
        arm_plan = plan_arm(arm, recipe, tokens | packed, budget_share=share)
        arms[arm] = {
            "steps": arm_plan.steps,
            "tokens": arm_plan.tokens,
            "epochs": arm_plan.epochs,
            "synthetic_share": arm_plan.synthetic_share,
            "estimated": [source for source in arm_plan.tokens if source in packed],
            "flops": per_token["causal"] * arm_plan.total_tokens,
        }
    stages = _stages(recipe, tokens) | downstream_cost(recipe)
    # The grid is tried with the first seed; one of its settings is the arm itself.
    tried = sum(setting.budget_share for setting in grid) / share - 1
    trained = sum(arm["flops"] for arm in arms.values())
    trials = tried * (trained if recipe.tuning.arms == "each" else arms["baseline"]["flops"])
    seeds = len(recipe.seeds)
    once = trained + sum(stage.get("flops", 0) for stage in stages.values())
    disk = estimate_disk(recipe)
    return {
        "name": recipe.name,
        "parameters": parameter_count(recipe.model),
        "parameters_without_embedding": parameter_count(recipe.model, embedding=False),
        "flops_per_token": per_token,
        "tokens_are": "exact" if exact else "estimated",
        "corpus_tokens": tokens,
        "batch_tokens": recipe.training.global_batch * recipe.training.sequence_length,
        "seeds": seeds,
        "trials": {"settings": len(grid), "arms": recipe.tuning.arms, "flops": trials},
        "flops": seeds * once + trials,
        "arms": arms,
        "stages": stages,
        "disk": {
            "datasets": disk.datasets,
            "embeddings": disk.embeddings,
            "checkpoints": disk.checkpoints,
            "synthetic": disk.synthetic,
            "total": disk.total,
        },
    }


def _tokens(recipe: Recipe) -> tuple[dict[str, int], bool]:
    if recipe.corpus.exists():
        try:
            corpus = make_corpus(recipe, Workspace(recipe.folder, lambda line: None, makes=()))
        except MissingStage:
            pass
        else:
            return source_tokens(corpus), True
    per_document = recipe.budget.expected_tokens_per_document
    counts = {"unique": recipe.corpus.unique, "oracle": recipe.corpus.oracle}
    for multiple in recipe.budget.multiples:
        counts[multiple_source(multiple)] = multiple * recipe.corpus.unique
    return {name: round(count * per_document) for name, count in counts.items()}, False


def _stages(recipe: Recipe, tokens: dict[str, int]) -> dict[str, dict[str, float]]:
    """Tokens and FLOPs of what stands between the baseline and the arms with synthetic text, one seed.

    Bounds, because they depend on what is found: tuning if every document has all the pairs it may have and
    no validation ends it earlier; generation if seeds are as long as d2 and every document is accepted.
    """
    written = written_arms(recipe.budget.arms)
    seeded = sum(map(is_seeded, written))
    training = flops_per_token(recipe.model, recipe.synthesizer.context, causal=True)
    without_seeds = flops_per_token(recipe.model, recipe.training.sequence_length, causal=True)
    pair_tokens = 2 * recipe.pairing.maximum_per_seed * tokens["unique"]
    tunings = len(recipe.synthesizer.learning_rates) + 1
    tuned = pair_tokens * recipe.synthesizer.maximum_epochs * tunings
    if "continuation" in recipe.budget.arms:
        # A part is at most once the beginning of a pair and once its end.
        parts = 2 * tokens["unique"] * recipe.synthesizer.maximum_epochs
        tuned += parts * len(recipe.synthesizer.learning_rates)
    if "second_round" in recipe.budget.arms:
        tuned += pair_tokens * recipe.synthesizer.maximum_epochs * len(recipe.synthesizer.learning_rates)
    need = synthetic_need(recipe)
    generation = need * (2 * seeded * training + (len(written) - seeded) * without_seeds) / 3
    return {
        "embedding": {"tokens": tokens["unique"]},
        "synthesizer tuning, at most": {"tokens": tuned, "flops": training * tuned},
        "generation, at least": {"tokens": len(written) * need, "flops": generation},
    }
