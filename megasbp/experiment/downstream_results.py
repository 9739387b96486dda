"""Downstream scores of every arm with their errors, and its gain over the baseline, paired by document."""

from collections.abc import Mapping
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
# The first of them that a task has is its accuracy.
_ACCURACIES = ("acc", "acc_norm", "exact_match")
# Arm -> seed -> its scores on one task.
Scores = dict[str, dict[int, TaskScores]]


def downstream_results(recipe: Recipe, seeds: list[SeedResults]) -> dict[str, Any]:
    """The part "downstream" of results.json; schema in docs/results-schema.md."""
    config = recipe.evaluation.downstream
    facts = next(iter(seeds[0].downstream.values())).facts
    tasks: dict[str, Any] = {}
    by_task: dict[str, Scores] = {}
    for name, about in facts["tasks"].items():
        by_task[name] = scores = {
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
    return {
        "harness": facts["harness"],
        "limit": config.limit,
        "tasks": tasks,
        "average": average(by_task, recipe.evaluation.bootstrap_resamples),
    }


def measures(scores: Scores, resamples: int) -> dict[str, dict[str, Any]]:
    """Measure -> arm -> its value, and its gain over the baseline: positive where the arm is better.

    Args:
        scores: of one task; "baseline" is among the arms.
        resamples: of the documents, each of which is a cluster of its own.
    """
    some = next(iter(scores["baseline"].values()))
    found = {}
    for name in [*some.metrics, *([ANSWER] if some.answer_nats is not None else [])]:
        losses = {arm: _losses(by_seed, name) for arm, by_seed in scores.items()}
        found[name] = _readings(losses, resamples, is_loss=name == ANSWER)
    return found


def _readings(losses: Mapping[str, HeldOutLosses], resamples: int, is_loss: bool) -> dict[str, Any]:
    """Arm -> its value, and its gain over the baseline."""
    key = derive_key(0, "downstream bootstrap")
    return {
        arm: {
            "value": _value(arm_loss(one, key, resamples=resamples), is_loss),
            "gain": None
            if arm == "baseline"
            else reading(contrast(one, losses["baseline"], key, resamples=resamples)),
        }
        for arm, one in losses.items()
    }


def average(by_task: Mapping[str, Scores], resamples: int) -> dict[str, Any] | None:
    """The mean accuracy of the tasks, each as heavy as another; None where fewer than two have one.

    Args:
        by_task: as of `measures`, for each task.
    """
    of = {name: metric for name, scores in by_task.items() if (metric := _accuracy(scores)) is not None}
    if len(of) < 2:
        return None
    arms = next(iter(by_task.values()))
    losses = {
        arm: _mean_of_tasks([_losses(by_task[name][arm], metric) for name, metric in of.items()])
        for arm in arms
    }
    return {"of": of, "arms": _readings(losses, resamples, is_loss=False)}


def _accuracy(scores: Scores) -> str | None:
    metrics = next(iter(scores["baseline"].values())).metrics
    return next((name for name in _ACCURACIES if name in metrics), None)


def _mean_of_tasks(tasks: list[HeldOutLosses]) -> HeldOutLosses:
    """Losses of all documents whose mean is the mean of the tasks' means, and has its error.

    Only how a document differs from its task's mean is weighted: which tasks the documents of a resample
    come from then changes nothing.
    """
    sizes = [len(task.units) for task in tasks]
    count = sum(sizes)
    nats = {}
    for seed in tasks[0].nats:
        means = [float(task.nats[seed].mean()) for task in tasks]
        nats[seed] = np.mean(means) + np.concatenate(
            [
                (task.nats[seed] - mean) * count / (len(tasks) * size)
                for task, mean, size in zip(tasks, means, sizes, strict=True)
            ]
        )
    return HeldOutLosses(nats, np.ones(count, dtype=np.int64), np.arange(count))


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
