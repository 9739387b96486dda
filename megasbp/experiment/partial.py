"""Results of what is complete of a recipe, while the rest is missing: fewer arms, fewer seeds."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch

from megasbp.errors import InputError
from megasbp.evaluation.downstream.config import DownstreamConfig
from megasbp.experiment.budget import EQUAL_FLOPS_ARMS, multiple_arm, trained_arms
from megasbp.experiment.divergence import DivergedStage
from megasbp.experiment.gates import ClosedGate
from megasbp.experiment.method import Method
from megasbp.experiment.read_log import note_read
from megasbp.experiment.recipe import Recipe
from megasbp.experiment.results import assemble
from megasbp.experiment.software import publish_software
from megasbp.experiment.stages import MissingStage, Workspace
from megasbp.experiment.text_measures import measuring_parts
from megasbp.parallel.runtime import Runtime
from megasbp.storage import publish_json

PARTIAL = "partial"


def publish_partial_results(recipe: Recipe) -> tuple[Path, list[str]]:
    """Writes report/partial/results.json, of the arms and seeds whose stages are all finished.

    Trains nothing and writes no text; what compares the texts of all arms, and the gates, are made anew for
    the arms that are there.

    Returns:
        Path of the results, and what is missing in them: arms, "seed N", "downstream tasks", the judge.

    Raises:
        InputError: not even the baseline's results, or what a pair is worth, are there.
    """
    # Of all arms: a seed stays left out where the arm that diverged is unfinished on another one.
    left_out = _method(recipe, makes=()).left_out
    complete, missing = complete_part(recipe, left_out)
    method = _method(complete, makes=_made_anew(complete))
    try:
        seeds = [method.seed(seed).results() for seed in complete.seeds if seed not in left_out]
        results = assemble(complete, seeds, left_out)
    except MissingStage as stage:
        raise InputError(f"{recipe.name}: {stage.stage} is not made yet; no report without it") from None
    if missing:
        results["what_this_run_can_show"] = (
            f"This report is partial: {', '.join(missing)} missing. {results['what_this_run_can_show']}"
        )
    path = recipe.folder / "report" / PARTIAL / "results.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    publish_json(path, results)
    note_read(recipe.folder, path, results)
    publish_software(path.parent)
    return path, missing


def complete_part(recipe: Recipe, left_out: Collection[int]) -> tuple[Recipe, list[str]]:
    """The recipe without arms that are unfinished on its first seed, and seeds on which one of the rest is.

    Args:
        left_out: seeds of which a training diverged. They stay, and count for nothing.

    Raises:
        InputError: the baseline of the first seed is unfinished.
    """
    method = _method(recipe, makes=())
    arms = trained_arms(recipe)
    first = next((seed for seed in recipe.seeds if seed not in left_out), recipe.seeds[0])
    kept = [arm for arm in arms if _is_finished(method, first, arm)]
    if "baseline" not in kept:
        raise InputError(f"{recipe.name}: seed-{first}/losses-baseline is not made yet; no report without it")
    whole = [seed for seed in recipe.seeds if all(_is_finished(method, seed, arm) for arm in kept)]
    seeds = [seed for seed in recipe.seeds if seed in whole or seed in left_out]
    missing = [arm for arm in arms if arm not in kept]
    missing += [f"seed {seed}" for seed in recipe.seeds if seed not in seeds]
    budget = recipe.budget.model_copy(
        update={
            "arms": tuple(arm for arm in recipe.budget.arms if arm in kept),
            "multiples": tuple(one for one in recipe.budget.multiples if multiple_arm(one) in kept),
            "equal_flops": recipe.budget.equal_flops and all(arm in kept for arm in EQUAL_FLOPS_ARMS),
        }
    )
    changed: dict[str, Any] = {"budget": budget, "seeds": tuple(seeds)}
    if recipe.evaluation.downstream.tasks and not all(
        _has_tasks(method, seed, arm) for seed in whole for arm in kept
    ):
        missing.append("downstream tasks")
        changed["evaluation"] = recipe.evaluation.model_copy(update={"downstream": DownstreamConfig()})
    if recipe.quality.judge is not None and not _is_judged(recipe.model_copy(update=changed)):
        missing.append("judge")
        changed["quality"] = recipe.quality.model_copy(update={"judge": None})
    return recipe.model_copy(update=changed), missing


def _made_anew(recipe: Recipe) -> set[str]:
    """Names of the stages that read the text of all arms."""
    first = recipe.seeds[0]
    measures = (stage for part in measuring_parts(recipe, first, "embed") for stage in part.stages)
    return {*measures, *(f"seed-{seed}/gates" for seed in recipe.seeds)}


def _is_finished(method: Method, seed: int, arm: str) -> bool:
    """Whether an arm is trained and measured."""
    stages = method.seed(seed).arm(arm)
    try:
        return bool(stages.losses and stages.best_losses and stages.plan)
    except (MissingStage, ClosedGate, DivergedStage):
        return False


def _has_tasks(method: Method, seed: int, arm: str) -> bool:
    try:
        return bool(method.seed(seed).arm(arm).downstream)
    except MissingStage:
        return False


def _is_judged(recipe: Recipe) -> bool:
    """Whether the judge's answers are all there; a report asks it nothing."""
    try:
        return bool(_method(recipe, makes=()).seed(recipe.seeds[0]).measures.judged)
    except (MissingStage, DivergedStage):
        return False


def _method(recipe: Recipe, makes: Collection[str]) -> Method:
    workspace = Workspace(recipe.folder, announce=lambda line: None, makes=makes)
    return Method(recipe, workspace, Runtime(0, 1, torch.device("cpu")))
