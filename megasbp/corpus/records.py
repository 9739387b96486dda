"""What makes a record of a file a document, and why a record is bad."""

import json
from dataclasses import dataclass
from typing import Any

from megasbp.corpus.quarantine import Position


@dataclass(frozen=True)
class Document:
    """One document.

    Attributes:
        id: from the corpus, or "file:line", "file:row", "file@offset" or "file" where it gives none.
        text: valid Unicode, not blank; the title, if asked for, is its first line.
        metadata: the wanted fields as strings, "" where missing; the title under its field's name.
        position: file and line, row or offset.
    """

    id: str
    text: str
    metadata: dict[str, str]
    position: str


@dataclass(frozen=True)
class Fields:
    """Which fields of a record make a document.

    Attributes:
        text, id, title: names of the fields; title may be None.
        metadata: names of further fields that are kept as strings.
        maximum_characters: longer texts, title included, are bad.
    """

    text: str
    id: str
    title: str | None
    metadata: tuple[str, ...]
    maximum_characters: int

    @property
    def maximum_line_bytes(self) -> int:
        """Longer lines hold no allowed document: JSON may spend 12 bytes on a character (two escapes).

        The rest is for the other fields.
        """
        return 12 * self.maximum_characters + (1 << 20)


@dataclass(frozen=True)
class Bad:
    """Why a record is no document.

    Attributes:
        reason: a word of the quarantine's counts.
        detail: what exactly.
    """

    reason: str
    detail: str = ""


Record = dict[str, Any] | Bad


def parse_line(line: bytes) -> Record | None:
    """The JSON object on a line; None for a blank line, which is no document."""
    if not line.strip():
        return None
    try:
        value = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return Bad("invalid_utf8", str(error))
    except (ValueError, RecursionError) as error:
        return Bad("invalid_json", str(error))
    # An empty object would read as a blank line.
    return (
        value if isinstance(value, dict) and value else Bad("not_an_object", f"a JSON {type(value).__name__}")
    )


def document(record: dict[str, Any], position: Position, fields: Fields) -> Document | Bad:
    """The document that a record makes, or why it makes none."""
    text = record.get(fields.text)
    if text is None:
        return Bad("missing_text", f"no field {fields.text!r}; there are: {', '.join(map(str, record))}")
    if not isinstance(text, str):
        return Bad("text_not_a_string", f"field {fields.text!r} is of type {type(text).__name__}")
    if not text.strip():
        return Bad("empty_text")
    metadata = {name: _as_string(record.get(name)) for name in fields.metadata}
    if fields.title is not None:
        title = _as_string(record.get(fields.title))
        metadata[fields.title] = title
        # One line, so that the text can be told from its title again.
        first_line = " ".join(title.split())
        text = f"{first_line}\n{text}" if first_line else text
    if len(text) > fields.maximum_characters:
        return Bad("too_long", f"{len(text)} characters, allowed are {fields.maximum_characters}")
    name = _as_string(record.get(fields.id)) or name_by_place(position)
    if not all(map(_is_unicode, (text, name, *metadata.values()))):
        return Bad("lone_surrogate", "half of a UTF-16 pair, which is no Unicode character")
    return Document(name, text, metadata, str(position))


def line_too_long(size: int, fields: Fields) -> Bad:
    """Why a line of `size` bytes is bad."""
    return Bad("line_too_long", f"{size} bytes, allowed are {fields.maximum_line_bytes}")


def name_by_place(position: Position) -> str:
    """The id of a document to which the corpus gives none."""
    for place in (position.line, position.row):
        if place is not None:
            return f"{position.file}:{place}"
    return position.file if position.offset is None else f"{position.file}@{position.offset}"


def _as_string(value: Any) -> str:
    if value is None:
        return ""
    return (
        value
        if isinstance(value, str)
        else json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    )


def _is_unicode(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
