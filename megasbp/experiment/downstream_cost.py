"""What the downstream tasks of a recipe cost, by counting what their files hold."""

from pathlib import Path

from megasbp.evaluation.downstream.config import DownstreamConfig
from megasbp.evaluation.downstream.local_tasks import local_task
from megasbp.experiment.budget import trained_arms
from megasbp.experiment.recipe import Recipe
from megasbp.model.flops import flops_per_token

# A guess at what a token of a trained vocabulary stands for.
_BYTES_PER_TOKEN = 4


def downstream_cost(recipe: Recipe) -> dict[str, dict[str, float]]:
    """A row of the plan's stages: requests, tokens and FLOPs of all arms of one seed.

    Requests are counted; tokens are guessed from their bytes. Empty where there is nothing to be counted: no
    task, only tasks of lm-eval's own, or files that are not there.
    """
    config = recipe.evaluation.downstream
    if config.data is None or not config.data.is_dir() or not config.local_tasks:
        return {}
    arms = len(trained_arms(recipe))
    counted = [_task_cost(config, name, config.data) for name in config.local_tasks]
    requests = arms * sum(count for count, _ in counted)
    # bos stands before each.
    tokens = requests + arms * sum(size for _, size in counted) / _BYTES_PER_TOKEN
    forward = flops_per_token(recipe.model, recipe.training.sequence_length, causal=True) / 3
    left_out = "" if config.tasks == config.local_tasks else ", those of lm-eval's own not counted"
    name = f"downstream tasks, about{left_out}"
    return {name: {"requests": requests, "tokens": tokens, "flops": forward * tokens}}


def _task_cost(config: DownstreamConfig, name: str, folder: Path) -> tuple[int, float]:
    """Requests and bytes of a task for one arm."""
    task = local_task(name, folder)
    asked = [task.requests(*task.rows[number]) for number in config.chosen(len(task.rows))]
    sizes = [[len(context.encode()) + len(answer.encode()) for context, answer in pairs] for pairs in asked]
    requests = sum(map(len, asked))
    # A solved example is about as long as a question with one answer.
    example = sum(sum(pairs) / len(pairs) for pairs in sizes) / len(sizes)
    return requests, sum(map(sum, sizes)) + config.shots_of(name) * example * requests
