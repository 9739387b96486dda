"""A sweep: one recipe at every combination of some settings, in one run's folder.

Stages that do not depend on a setting are made once: their folders are named by the hash of what they depend
on. So a sweep over the sampler trains no synthesizer twice, one that was stopped goes on where it was, and a
later one adds to what an earlier one found.
"""

import itertools
import json
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megasbp.errors import InputError
from megasbp.experiment.clean import SWEEP
from megasbp.experiment.recipe import Recipe, load_recipe
from megasbp.experiment.run import run_experiment
from megasbp.experiment.side_by_side import run_side_by_side
from megasbp.storage import publish_json, read_json

_MOST = 1000
_TOGETHER = (
    "settings that go together are one list of tables, and stand nowhere else: "
    'pairing=[{source="neighbours"},{source="random",random_pairs=5000}]'
)


@dataclass(frozen=True)
class Variant:
    """One combination.

    Attributes:
        settings: key -> the value tried; a key names one setting, and no section.
        recipe: with them, and with what is the same for all.
        fixed: overrides that are the same for all.
    """

    settings: Mapping[str, Any]
    recipe: Recipe
    fixed: tuple[str, ...]

    @property
    def overrides(self) -> tuple[str, ...]:
        """Of all its settings, as `load_recipe` takes them."""
        return (*self.fixed, *_overrides(self.settings))

    @property
    def folder(self) -> Path:
        """Where its results and report go."""
        return self.recipe.folder / SWEEP / self.recipe.hash[:10]

    @property
    def results(self) -> Path:
        """Its results.json."""
        return self.folder / "results.json"


def read_sweep(path: Path, overrides: Sequence[str]) -> list[Variant]:
    """The combinations of `key=[a, b]` overrides, the last key's values varying fastest.

    Args:
        overrides: as of `load_recipe`. One whose value is a list is tried item by item: of a setting that is
            a list itself, give a list of lists; of a section, a list of tables, whose settings replace the
            recipe's one by one, and the section's others stay. Others are the same for all.

    Raises:
        InputError: no setting is swept, a list is empty or has a value twice, a setting is swept twice, there
            are more than 1,000 combinations, two are one recipe or are of several runs, or a recipe is
            impossible; nothing has run then.
    """
    fixed: list[str] = []
    axes: dict[str, list[dict[str, Any]]] = {}
    for override in overrides:
        key, _, text = override.partition("=")
        values = _list_of(text)
        if values is None:
            fixed.append(override)
            continue
        if not values or any(value in values[:place] for place, value in enumerate(values)):
            raise InputError(f"{override}: needs different values, such as {key}=[1, 2]")
        if key in axes:
            raise InputError(f"{override}: {key} is swept twice; write one list")
        axes[key] = [dict(_settings(key, value)) for value in values]
    if not axes:
        raise InputError("nothing to sweep: give a setting a list, such as synthesis.temperature=[0.8,1.0]")
    _require_apart(axes)
    count = 1
    for axis in axes.values():
        count *= len(axis)
    if count > _MOST:
        raise InputError(f"{count:,} combinations; at most {_MOST:,}")
    variants = []
    for chosen in itertools.product(*axes.values()):
        settings = {key: value for part in chosen for key, value in part.items()}
        try:
            variants.append(_variant(path, settings, fixed))
        except InputError as error:
            mend = f"; {_TOGETHER}" if len(overrides) > 1 or "pairing.source" in axes else ""
            raise InputError(f"{describe(settings)}: {error}{mend}") from None
    _require_different(variants)
    return variants


def run_sweep(
    path: Path,
    variants: Sequence[Variant],
    jobs: int,
    announce: Callable[[str], None],
    announce_plan: Callable[[dict[str, Any]], None],
    finished: Callable[[Variant, Path], None],
) -> Path:
    """Runs one combination after another; after each it writes sweep/sweep.json, whose path it returns.

    Combinations of earlier sweeps stay in that file as long as their results are there and the recipe, with
    their own settings, is what it was.

    Args:
        path: of the recipe.
        jobs: parts of a combination that are made side by side.
        announce, announce_plan: as of `run_experiment`.
        finished: called when the results of one are there, with it and the path of the sweep.json.
    """
    place = variants[0].folder.with_name("sweep.json")
    listed = {one.folder: one for one in _earlier(place, path, variants[0].fixed, announce)}
    for number, variant in enumerate(variants, 1):
        announce(f"sweep {number} of {len(variants)}: {describe(variant.settings)}")
        recipe, folder = variant.recipe, variant.folder
        if jobs == 1:
            run_experiment(recipe, announce, announce_plan, variant=folder)
        else:
            given = (recipe, path, variant.overrides, jobs)
            run_side_by_side(*given, announce, announce_plan, variant=folder)
        listed[folder] = variant
        publish_json(place, {"recipes": _entries(listed.values())})
        finished(variant, place)
    return place


def describe(settings: Mapping[str, Any]) -> str:
    """As one types it."""
    return " ".join(_overrides(settings)) or "the recipe as it is"


def _variant(path: Path, settings: Mapping[str, Any], fixed: Sequence[str]) -> Variant:
    """Raises InputError: the recipe is impossible."""
    return Variant(settings, load_recipe(path, (*fixed, *_overrides(settings))), tuple(fixed))


def _overrides(settings: Mapping[str, Any]) -> list[str]:
    return [f"{key}={_typed(value)}" for key, value in settings.items()]


def _list_of(text: str) -> list[Any] | None:
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return None
    return value if isinstance(value, list) else None


def _settings(key: str, value: Any) -> Iterable[tuple[str, Any]]:
    """The settings that a value holds: those of a table, else itself."""
    if not isinstance(value, dict):
        yield key, value
        return
    for name, inner in value.items():
        yield from _settings(f"{key}.{name}", inner)


def _typed(value: Any) -> str:
    """A value as TOML."""
    match value:
        case dict():
            return "{" + ", ".join(f"{name} = {_typed(inner)}" for name, inner in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(_typed, value)) + "]"
        case str():
            # Of what JSON leaves as it is, TOML refuses DEL alone.
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case bool():
            return str(value).lower()
    return str(value)


def _require_apart(axes: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Raises InputError: two lists are of one setting."""
    keys = {axis: {key for settings in values for key in settings} for axis, values in axes.items()}
    for one, other in itertools.combinations(keys, 2):
        for first, second in itertools.product(keys[one], keys[other]):
            if f"{first}.".startswith(f"{second}.") or f"{second}.".startswith(f"{first}."):
                raise InputError(f"{first} is swept twice, by {one} and {other}; write one list of tables")


def _require_different(variants: Sequence[Variant]) -> None:
    """Raises InputError: results of two combinations would go to one folder, or to folders of two runs."""
    found: dict[Path, Variant] = {}
    for variant in variants:
        same = found.setdefault(variant.folder, variant)
        if same is not variant:
            one, other = describe(variant.settings), describe(same.settings)
            raise InputError(f"{one}: has the results of {other}; leave one of them out")
        if variant.recipe.folder != variants[0].recipe.folder:
            raise InputError(
                f"{describe(variant.settings)}: a sweep is of one run's folder; leave name and runs alone"
            )


def _earlier(
    place: Path, path: Path, fixed: tuple[str, ...], announce: Callable[[str], None]
) -> list[Variant]:
    """The combinations of an earlier sweep whose results are what this one would find at their settings."""
    entries = read_json(place)["recipes"] if place.exists() else []
    found = []
    for entry in entries:
        settings = {key: value for key, value in entry["settings"].items() if value is not None}
        try:
            variant = _variant(path, settings, fixed)
        except InputError:
            continue
        if place.parent / entry["results"] == variant.results and variant.results.exists():
            found.append(variant)
    if len(found) < len(entries):
        announce(
            f"sweep: {len(entries) - len(found)} earlier combinations leave the table: other settings of the "
            "recipe have changed since, or their results are gone"
        )
    return found


def _entries(variants: Iterable[Variant]) -> list[dict[str, Any]]:
    """What sweep.json says of each; a setting that only others try stands there as its recipe has it."""
    listed = [(one, one.recipe.model_dump(mode="json")) for one in variants]
    keys = list(dict.fromkeys(key for one, _ in listed for key in one.settings))
    return [
        {
            "settings": {key: _value_at(values, key) for key in keys},
            "results": one.results.relative_to(one.folder.parent).as_posix(),
        }
        for one, values in listed
    ]


def _value_at(values: Any, key: str) -> Any:
    for name in key.split("."):
        values = values.get(name) if isinstance(values, dict) else None
    return values
