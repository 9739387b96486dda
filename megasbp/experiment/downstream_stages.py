"""Downstream tasks: every arm's last weights, exported, under lm-eval-harness."""

import shutil
from pathlib import Path
from typing import Any

from megasbp.errors import InputError
from megasbp.evaluation.downstream import harness
from megasbp.evaluation.downstream.local_tasks import check_files, local_task
from megasbp.evaluation.downstream.scores import TaskScores, read_scores, write_scores
from megasbp.experiment.context import TOKENIZER_NAME, Context, last_checkpoint
from megasbp.experiment.recipe import Recipe
from megasbp.experiment.stages import StageResult
from megasbp.storage import hash_file, hash_object
from megasbp.training.conversion import export_checkpoint

# What lm-eval is given and makes for itself; removed when the tasks are done.
_WORK = ("export", "cache")


def downstream_stage(context: Context, arm: str, trained: StageResult) -> StageResult:
    """Scores of the arm's final weights on every document of every task, in TASK.parquet.

    An interrupted call goes on after the last task that it has finished.
    """
    recipe = context.recipe
    config, training = recipe.evaluation.downstream, recipe.training

    def make(folder: Path) -> dict[str, Any]:
        _score(context, last_checkpoint(trained), folder)
        return _facts(folder)

    inputs: dict[str, StageResult | str] = {"trained": trained, "tokenizer": context.corpus.tokenizer}
    definitions = {}
    for name in config.local_tasks:
        assert config.data is not None
        task = local_task(name, config.data)
        definitions[name] = hash_object(task.config)
        inputs |= {f"data/{name}/{number}": hash_file(file) for number, file in enumerate(task.files)}
    return context.workspace.stage(
        context.name(f"downstream-{arm}"),
        inputs=inputs,
        settings={
            "downstream": config.content(),
            "harness": harness.harness_version(),
            "definitions": definitions,
            "window": training.sequence_length,
            "dtype": str(training.compute_dtype),
        },
        make=make,
    )


def require_downstream(recipe: Recipe) -> None:
    """Refuses tasks that cannot be measured, before anything is written.

    Raises:
        InputError: lm-eval or one of its tasks is not there, or a file is missing, damaged or too short.
    """
    config = recipe.evaluation.downstream
    if not config.tasks:
        return
    harness.harness_version()
    harness.require_tasks(config)
    for name in config.local_tasks:
        assert config.data is not None
        task, shots = check_files(name, config.data), config.shots_of(name)
        if shots >= len(task.rows):
            raise InputError(
                f"evaluation.downstream.shots asks for {shots} examples of {name}, {task.files[0].name} "
                f"has {len(task.rows)} documents; set it to at most {len(task.rows) - 1}"
            )


def _score(context: Context, checkpoint: Path, folder: Path) -> None:
    recipe = context.recipe
    export, cache = (folder / name for name in _WORK)
    shutil.rmtree(cache, ignore_errors=True)
    export_checkpoint(checkpoint, export, context.corpus.tokenizer.folder / TOKENIZER_NAME)
    opened = harness.Harness(
        export,
        recipe.evaluation.downstream,
        recipe.training.sequence_length,
        context.runtime.device,
        recipe.training.compute_dtype,
        cache,
    )
    for name, task in opened.tasks().items():
        path = folder / f"{name}.parquet"
        if not path.exists():
            write_scores(opened.score(name, task), path)
    for work in _WORK:
        shutil.rmtree(folder / work, ignore_errors=True)


def _facts(folder: Path) -> dict[str, Any]:
    scores = {path.stem: read_scores(path) for path in sorted(folder.glob("*.parquet"))}
    tasks = {name: _task(found) for name, found in scores.items()}
    return {"harness": f"lm-eval {harness.harness_version()}", "tasks": tasks}


def _task(scores: TaskScores) -> dict[str, Any]:
    return {
        "documents": len(scores.documents),
        "shots": scores.shots,
        "chance": scores.chance,
        "cut": scores.cut,
        **{name: float(values.mean()) for name, values in scores.metrics.items()},
    }
