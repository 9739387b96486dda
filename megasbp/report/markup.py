"""HTML and SVG as nested calls: text is escaped because it is text, not because someone remembered."""

from html import escape

# Elements that have no end tag in HTML.
_VOID = frozenset({"meta", "input", "br", "hr"})


class Markup(str):
    """A string that is already HTML."""

    __slots__ = ()


def text(value: object) -> Markup:
    """`value` as HTML text: escaped unless it is `Markup`."""
    return value if isinstance(value, Markup) else Markup(escape(str(value), quote=True))


def join(parts: list[Markup]) -> Markup:
    """Parts one after another, each on its own line."""
    return Markup("\n".join(parts))


def element(name: str, /, *children: object, **attributes: object) -> Markup:
    """One element.

    Args:
        name: of the element.
        children: strings (escaped) and `Markup` (kept); None is left out.
        attributes: `class_` and `for_` lose their underscore, other underscores become hyphens; None and
            False leave an attribute out, True gives one without a value.
    """
    written = "".join(
        f" {_attribute_name(key)}" if value is True else f' {_attribute_name(key)}="{text(value)}"'
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in _VOID:
        return Markup(f"<{name}{written}>")
    inner = "".join(text(child) for child in children if child is not None)
    return Markup(f"<{name}{written}>{inner}</{name}>")


def _attribute_name(key: str) -> str:
    return key.rstrip("_").replace("_", "-")
