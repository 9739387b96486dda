"""A sweep: one recipe at every combination of some settings, in one run's folder.

Stages that do not depend on a setting are made once: their folders are named by the hash of what they depend
on. So a sweep over the sampler trains no synthesizer twice, and one that was stopped goes on where it was.
"""

import itertools
import json
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megasbp.errors import InputError
from megasbp.experiment.clean import SWEEP
from megasbp.experiment.recipe import Recipe, load_recipe
from megasbp.experiment.run import run_experiment
from megasbp.experiment.side_by_side import run_side_by_side
from megasbp.storage import publish_json

_MOST = 1000


@dataclass(frozen=True)
class Variant:
    """One combination.

    Attributes:
        settings: key -> the value tried.
        recipe: with them, and with what is the same for all.
        overrides: both, as `load_recipe` takes them.
    """

    settings: Mapping[str, Any]
    recipe: Recipe
    overrides: tuple[str, ...]

    @property
    def folder(self) -> Path:
        """Where its results and report go."""
        return self.recipe.folder / SWEEP / self.recipe.hash[:10]


def read_sweep(path: Path, overrides: Sequence[str]) -> list[Variant]:
    """The combinations of `key=[a, b]` overrides, the last key's values varying fastest.

    Args:
        overrides: as of `load_recipe`. One whose value is a list is tried item by item: of a setting that is
            a list itself, give a list of lists. Others are the same for all.

    Raises:
        InputError: no setting is swept, a list is empty or has a value twice, there are more than 1,000
            combinations, or a recipe is impossible; nothing has run then.
    """
    fixed, swept = [], {}
    for override in overrides:
        key, _, text = override.partition("=")
        values = _list_of(text)
        if values is None:
            fixed.append(override)
            continue
        if not values or any(value in values[:place] for place, value in enumerate(values)):
            raise InputError(f"{override}: needs different values, such as {key}=[1, 2]")
        if key in swept:
            raise InputError(f"{override}: {key} is swept twice; write one list")
        swept[key] = values
    if not swept:
        raise InputError("nothing to sweep: give a setting a list, such as synthesis.temperature=[0.8,1.0]")
    count = 1
    for values in swept.values():
        count *= len(values)
    if count > _MOST:
        raise InputError(f"{count:,} combinations; at most {_MOST:,}")
    variants = []
    for chosen in itertools.product(*swept.values()):
        settings = dict(zip(swept, chosen, strict=True))
        own = [f"{key}={json.dumps(value)}" for key, value in settings.items()]
        given = (*fixed, *own)
        try:
            variants.append(Variant(settings, load_recipe(path, given), given))
        except InputError as error:
            raise InputError(f"{' '.join(own)}: {error}") from None
    return variants


def run_sweep(
    path: Path,
    variants: Sequence[Variant],
    jobs: int,
    announce: Callable[[str], None],
    announce_plan: Callable[[dict[str, Any]], None],
    finished: Callable[[Variant], None],
) -> Path:
    """Runs one combination after another, and then writes sweep/sweep.json, whose path it returns.

    Args:
        path: of the recipe.
        jobs: parts of a combination that are made side by side.
        announce, announce_plan: as of `run_experiment`.
        finished: called when the results of one are there.
    """
    for number, variant in enumerate(variants, 1):
        announce(f"sweep {number} of {len(variants)}: {describe(variant.settings)}")
        recipe, folder = variant.recipe, variant.folder
        if jobs == 1:
            run_experiment(recipe, announce, announce_plan, variant=folder)
        else:
            given = (recipe, path, variant.overrides, jobs)
            run_side_by_side(*given, announce, announce_plan, variant=folder)
        finished(variant)
    root = variants[0].recipe.folder / SWEEP
    listed = [
        {"settings": dict(variant.settings), "results": f"{variant.folder.name}/results.json"}
        for variant in variants
    ]
    publish_json(root / "sweep.json", {"recipes": listed})
    return root / "sweep.json"


def describe(settings: Mapping[str, Any]) -> str:
    """As one types it."""
    return " ".join(f"{key}={json.dumps(value)}" for key, value in settings.items())


def _list_of(text: str) -> list[Any] | None:
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return None
    return value if isinstance(value, list) else None
