"""What a launcher starts for a recipe: a job for each of its parts."""

from collections.abc import Callable, Sequence
from pathlib import Path

from megasbp.experiment.parts import parts_until
from megasbp.experiment.recipe import Recipe
from megasbp.experiment.run import Finished
from megasbp.launch.job import Job


def recipe_jobs(
    recipe: Recipe, path: Path, overrides: Sequence[str], until: Sequence[str] | None = None
) -> list[Job]:
    """A job for each part, in order: `megasbp stage RECIPE PART` on what [cluster] gives that kind.

    Args:
        path, overrides: what the recipe was read from.
        until: stages; there are jobs for the parts that make them and for what these need.

    Raises:
        InputError: no part makes a stage of `until`.
    """
    return [
        Job(
            part.name,
            recipe.cluster.of(part.kind),
            part.needs,
            ("-m", "megasbp", "stage", str(path), part.name, *overrides),
        )
        for part in parts_until(recipe, until)
    ]


def finished_jobs(recipe: Recipe) -> Callable[[Job], bool]:
    """Whether a job's stages are there, as the disk has it when asked."""
    found, named = Finished(recipe), {part.name: part for part in parts_until(recipe, None)}
    return lambda job: found(named[job.name])
