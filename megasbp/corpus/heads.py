"""The beginning of a text, cut where a reader would stop."""

import re

# What ends a sentence, quotes and brackets behind it included, before a space.
_SENTENCE = re.compile(r"[.!?][\"'”’)\]]*(?=\s)")
_LEAST_SHARE = 0.5


def head(text: str, characters: int) -> str:
    """The longest beginning of at most so many characters that ends with a paragraph, else with a sentence,
    else with a word; without space at its end.

    A border in the first half is passed over for a later one of the next kind: a head shall not be short
    because its first paragraph is.
    """
    text = text.rstrip()
    if len(text) <= characters:
        return text
    cut = text[:characters]
    paragraph = cut.rfind("\n")
    if text[characters] == "\n":
        paragraph = characters
    if paragraph >= _LEAST_SHARE * characters:
        return cut[:paragraph].rstrip()
    # One character more, to see the space behind a sentence that just fits.
    ends = [match.end() for match in _SENTENCE.finditer(text[: characters + 1])]
    if ends and ends[-1] >= _LEAST_SHARE * characters:
        return cut[: ends[-1]]
    word = max(cut.rfind(" "), cut.rfind("\n"))
    if text[characters].isspace():
        word = characters
    return (cut[:word] if word > 0 else cut).rstrip()
