"""Downstream scores of every arm with their errors, and its gain over the baseline, paired by document."""

from typing import Any

import numpy as np

from megasbp.addressing import derive_key
from megasbp.evaluation.downstream.scores import TaskScores, read_scores
from megasbp.experiment.recipe import Recipe
from megasbp.experiment.seed_results import SeedResults
from megasbp.experiment.statistics.intervals import Estimate, arm_loss, contrast
from megasbp.experiment.statistics.losses import HeldOutLosses
from megasbp.experiment.statistics.readings import reading

# Of an answer: a loss, in the unit of the held-out loss.
ANSWER = "answer_nats_per_byte"
# Arm -> seed -> its scores on one task.
Scores = dict[str, dict[int, TaskScores]]


def downstream_results(recipe: Recipe, seeds: list[SeedResults]) -> dict[str, Any]:
    """The part "downstream" of results.json; schema in docs/results-schema.md."""
    config = recipe.evaluation.downstream
    facts = next(iter(seeds[0].downstream.values())).facts
    tasks = {}
    for name, about in facts["tasks"].items():
        scores = {
            arm: {
                result.context.seed: read_scores(result.downstream[arm].folder / f"{name}.parquet")
                for result in seeds
            }
            for arm in seeds[0].downstream
        }
        tasks[name] = {
            "documents": about["documents"],
            "shots": about["shots"],
            "chance": about["chance"],
            "cut": about["cut"],
            "measures": measures(scores, recipe.evaluation.bootstrap_resamples),
        }
    return {"harness": facts["harness"], "limit": config.limit, "tasks": tasks}


def measures(scores: Scores, resamples: int) -> dict[str, dict[str, Any]]:
    """Measure -> arm -> its value, and its gain over the baseline: positive where the arm is better.

    Args:
        scores: of one task; "baseline" is among the arms.
        resamples: of the documents, each of which is a cluster of its own.
    """
    some = next(iter(scores["baseline"].values()))
    key = derive_key(0, "downstream bootstrap")
    found = {}
    for name in [*some.metrics, *([ANSWER] if some.answer_nats is not None else [])]:
        losses = {arm: _losses(by_seed, name) for arm, by_seed in scores.items()}
        found[name] = {
            arm: {
                "value": _value(arm_loss(one, key, resamples=resamples), is_loss=name == ANSWER),
                "gain": None
                if arm == "baseline"
                else reading(contrast(one, losses["baseline"], key, resamples=resamples)),
            }
            for arm, one in losses.items()
        }
    return found


def _losses(by_seed: dict[int, TaskScores], measure: str) -> HeldOutLosses:
    """A measure as a loss, so that the intervals of the held-out loss are those of a measure too."""
    some = next(iter(by_seed.values()))
    count = len(some.documents)
    if measure != ANSWER:
        nats = {seed: -scores.metrics[measure] for seed, scores in by_seed.items()}
        return HeldOutLosses(nats, np.ones(count, dtype=np.int64), np.arange(count))
    answers = {seed: scores.answer_nats for seed, scores in by_seed.items() if scores.answer_nats is not None}
    assert some.answer_bytes is not None
    return HeldOutLosses(answers, some.answer_bytes, np.arange(count))


def _value(loss: Estimate, is_loss: bool) -> dict[str, Any]:
    values = reading(loss)
    if is_loss:
        return values
    # 0 - x and not -x, which is -0.0 where nothing is right.
    return {**values, "estimate": 0 - loss.estimate, "low": 0 - loss.high, "high": 0 - loss.low}
