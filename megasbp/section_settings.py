"""One section of a recipe from `key=value` settings, for command lines that have no recipe."""

import tomllib
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from megasbp.errors import InputError

S = TypeVar("S", bound=BaseModel)


def section_of(kind: type[S], name: str, section: Mapping[str, Any], settings: Sequence[str]) -> S:
    """A section with settings that replace its values.

    Args:
        kind: the section's model.
        name: what a recipe calls it; settings may begin with it and a dot.
        section: values as a recipe has them.
        settings: `key=value` or `key.key=value`; values are TOML, bare words are strings.

    Raises:
        InputError: a key is unknown or a value impossible.
    """
    values = dict(section)
    for setting in settings:
        key, equals, text = setting.removeprefix(f"{name}.").partition("=")
        if not equals:
            raise InputError(f"{setting!r} is not a setting; write key=value")
        *parents, last = key.split(".")
        target = values
        for parent in parents:
            target[parent] = dict(target.get(parent, {}))
            target = target[parent]
        try:
            target[last] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            target[last] = text
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            known = ", ".join(kind.model_fields)
            raise InputError(f"{place}: unknown setting; known here: {known}") from None
        message = first["msg"].removeprefix("Value error, ")
        raise InputError(f"{place}: {message}" if place else message) from None
