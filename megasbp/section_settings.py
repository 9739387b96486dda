"""Settings of a recipe, from its file and a command line, and what is wrong with them in one line."""

import copy
import difflib
import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from megasbp.errors import InputError

S = TypeVar("S", bound=BaseModel)


def read_values(path: Path) -> dict[str, Any]:
    """The values of a recipe's file as they stand: section -> setting -> value.

    Raises:
        InputError: the file is missing or not TOML.
    """
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such recipe; those of the project lie in configs/") from None
    except IsADirectoryError:
        raise InputError(f"{path}: a folder; name the recipe's .toml file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid TOML: {error}") from None


def apply_setting(values: dict[str, Any], setting: str, form: str) -> None:
    """Puts a `key.key=value` in its place among nested values; the value is TOML, a bare word a string.

    Args:
        form: what was expected, for the refusal: "a setting; write key=value".

    Raises:
        InputError: there is no key or no value, or one of the parents is a value.
    """
    key, equals, text = setting.partition("=")
    if not equals or not key:
        raise InputError(f"{setting!r} is not {form}")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *parents, last = key.split(".")
    target = values
    for parent in parents:
        target = target.setdefault(parent, {})
        if not isinstance(target, dict):
            raise InputError(f"{setting!r}: {parent} is a value, not a section")
    target[last] = value


def describe(error: ValidationError, kind: type[BaseModel]) -> str:
    """One line for the first problem of a section of that kind: where, what, what is allowed."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        known = _fields_at(kind, [str(part) for part in first["loc"][:-1]])
        near = difflib.get_close_matches(str(first["loc"][-1]), known, n=1, cutoff=0.5)
        mend = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(sorted(known))}"
        return f"{place}: unknown setting; {mend}{more}"
    if first["type"] == "missing":
        return f"{place}: missing; set it{more}"
    message = first["msg"].removeprefix("Value error, ")
    # A message about settings that do not agree holds their values.
    if not isinstance(first["input"], dict):
        message += f", not {json.dumps(first['input'], default=str)[:80]}"
    return f"{place}: {message}{more}" if place else f"{message}{more}"


def _fields_at(kind: type[BaseModel], path: Sequence[str]) -> list[str]:
    for name in path:
        annotation = kind.model_fields[name].annotation
        # A section, or a section that may be None.
        (kind,) = (
            one
            for one in (annotation, *get_args(annotation))
            if isinstance(one, type) and issubclass(one, BaseModel)
        )
    return list(kind.model_fields)


def section_of(kind: type[S], name: str, recipe: Mapping[str, Any], settings: Sequence[str] = ()) -> S:
    """A section with settings that replace its values, for command lines that need no whole recipe.

    Args:
        kind: the section's model.
        name: what a recipe calls it; settings may begin with it and a dot.
        recipe: as `read_values` gives it, with the section or without.
        settings: as `apply_setting` takes them.

    Raises:
        InputError: a key is unknown or a value impossible.
    """
    values = copy.deepcopy(recipe.get(name, {}))
    if not isinstance(values, dict):
        raise InputError(f"{name} = {values!r}: is a value, not a section")
    for setting in settings:
        apply_setting(values, setting.removeprefix(f"{name}."), "a setting; write key=value")
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise InputError(describe(error, kind)) from None


def section_of_options(kind: type[S], name: str, options: Mapping[str, Any]) -> S:
    """A section whose settings are options of a command line, named alike.

    Args:
        kind, name: as of `section_of`.
        options: setting -> its value, or None where the option was not given.

    Raises:
        InputError: a value is impossible, or two do not agree; the message names the options.
    """
    try:
        return kind.model_validate({key: value for key, value in options.items() if value is not None})
    except ValidationError as error:
        line, of_one = describe(error, kind), bool(error.errors()[0]["loc"])
        raise InputError(f"--{line}" if of_one else line.replace(f"{name}.", "--")) from None
