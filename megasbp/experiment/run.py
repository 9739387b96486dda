"""The order of the method: which stage follows which."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from megasbp.errors import InputError
from megasbp.experiment.arm_stages import (
    Chosen,
    losses_stage,
    synthesis_stage,
    train_stage,
    trial_grid,
)
from megasbp.experiment.budget import SYNTHESIZER_OF_ARM
from megasbp.experiment.clean import record_used
from megasbp.experiment.context import Context
from megasbp.experiment.corpus_stages import make_corpus, require_corpus
from megasbp.experiment.disk import estimate_disk
from megasbp.experiment.pair_stages import embed_stage, pairs_stage
from megasbp.experiment.plan import plan
from megasbp.experiment.recipe import Recipe
from megasbp.experiment.stages import StageResult, Workspace
from megasbp.experiment.synthesizer_stages import pair_value_stage, synthesizer_stages
from megasbp.experiment.text_stages import quality_stage
from megasbp.parallel.runtime import Runtime
from megasbp.shards.lock import folder_lock
from megasbp.storage import require_free_space


@dataclass
class SeedResults:
    """The finished stages of one seed that the results are assembled from."""

    context: Context
    chosen: Chosen
    trials: list[StageResult]
    embed: StageResult | None
    pairs: StageResult
    synthesizers: dict[str, StageResult]
    pair_value: StageResult
    synthesis: dict[str, StageResult] = field(default_factory=dict)
    trained: dict[str, StageResult] = field(default_factory=dict)
    losses: dict[str, StageResult] = field(default_factory=dict)
    quality: dict[str, StageResult] = field(default_factory=dict)


def run_experiment(
    recipe: Recipe,
    announce: Callable[[str], None],
    announce_plan: Callable[[dict[str, Any]], None],
    until: str | None = None,
) -> list[SeedResults]:
    """Runs every stage that is missing or changed.

    Args:
        announce: receives one line per stage.
        announce_plan: receives the exact plan (`plan.plan`) when the corpus is tokenised, before training.
        until: a stage after which to stop.

    Raises:
        Reached: the stage `until` is finished.
        InputError: a setting or an input is impossible; what was finished before stays.
    """
    # A missing file is said before anything is written.
    require_corpus(recipe)
    recipe.pairing.file()
    require_free_space(recipe.folder, estimate_disk(recipe).total)
    runtime = start_runtime(recipe)
    with folder_lock(recipe.folder):
        workspace = Workspace(recipe.folder, announce, until=until)
        corpus = make_corpus(recipe, workspace)
        announce_plan(plan(recipe))
        results: list[SeedResults] = []
        for seed in recipe.seeds:
            context = Context(recipe, workspace, corpus, seed, runtime)
            results.append(_make_seed(context, results[0] if results else None))
        if until is not None:
            raise InputError(
                f"--until {until}: no such stage; the lines above name the stages of this recipe"
            )
        record_used(recipe.folder, workspace.used)
        return results


def start_runtime(recipe: Recipe) -> Runtime:
    """One process with the recipe's number of threads, or torchrun's group."""
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    return Runtime.start(recipe.parallel)


def train_arm(
    recipe: Recipe, runtime: Runtime, arm: str, seed: int, announce: Callable[[str], None]
) -> StageResult:
    """Trains one arm (under torchrun too) when the stages before it are finished."""
    if seed not in recipe.seeds:
        raise InputError(f"--seed {seed}: the recipe has seeds {list(recipe.seeds)}")
    if arm not in recipe.budget.arms:
        raise InputError(f"--arm {arm}: the recipe has arms {', '.join(recipe.budget.arms)}")
    before = Workspace(recipe.folder, lambda line: None, build=False)
    corpus = make_corpus(recipe, before)
    grid = trial_grid(recipe)
    if len(grid) == 1:
        chosen = grid[0]
    else:
        first = Context(recipe, before, corpus, recipe.seeds[0], runtime)
        chosen = _choose([train_stage(first, "baseline", trial) for trial in grid], grid)
    synthetic = None
    if arm in SYNTHESIZER_OF_ARM:
        synthetic = _synthetic_of(Context(recipe, before, corpus, seed, runtime), chosen, arm)
    workspace = Workspace(recipe.folder, announce, runtime=runtime)
    return train_stage(Context(recipe, workspace, corpus, seed, runtime), arm, chosen, synthetic)


def _make_seed(context: Context, tuned: SeedResults | None) -> SeedResults:
    recipe = context.recipe
    if tuned is None:
        grid = trial_grid(recipe)
        trials = [train_stage(context, "baseline", trial) for trial in grid]
        chosen = _choose(trials, grid)
    else:
        trials, chosen = [], tuned.chosen
    baseline = train_stage(context, "baseline", chosen)
    embed = embed_stage(context, baseline)
    pairs = pairs_stage(context, embed)
    synthesizers = synthesizer_stages(context, pairs, baseline)
    value = pair_value_stage(context, pairs, baseline, synthesizers)
    results = SeedResults(context, chosen, trials, embed, pairs, synthesizers, value)
    results.quality["real"] = quality_stage(context, "real", None)
    for arm in recipe.budget.arms:
        if arm in SYNTHESIZER_OF_ARM:
            results.synthesis[arm] = synthesis_stage(context, arm, synthesizers[SYNTHESIZER_OF_ARM[arm]])
            results.quality[arm] = quality_stage(context, arm, results.synthesis[arm])
        results.trained[arm] = train_stage(context, arm, chosen, results.synthesis.get(arm))
        results.losses[arm] = losses_stage(context, arm, results.trained[arm])
    return results


def _synthetic_of(context: Context, chosen: Chosen, arm: str) -> StageResult:
    baseline = train_stage(context, "baseline", chosen)
    pairs = pairs_stage(context, embed_stage(context, baseline))
    synthesizers = synthesizer_stages(context, pairs, baseline)
    return synthesis_stage(context, arm, synthesizers[SYNTHESIZER_OF_ARM[arm]])


def _choose(trials: list[StageResult], grid: list[Chosen]) -> Chosen:
    """The settings with the lowest validation loss at the end of the budget; the first of equals."""
    losses = [trial.facts["final_validation_loss"] for trial in trials]
    return grid[losses.index(min(losses))]
