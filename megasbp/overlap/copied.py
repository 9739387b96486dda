"""Where in a document the copied stretches lie."""

from collections.abc import Callable, Sequence

import numpy as np

from megasbp.overlap.ngram_index import NgramIndex

# What a decoder makes of a character that is cut off.
_REPLACEMENT = "\ufffd"


def copied_stretches(tokens: np.ndarray, index: NgramIndex) -> list[tuple[int, int]]:
    """The stretches of a document that are covered by n-grams of an index, as (first token, end).

    Ascending, and none touches the next. Together they are `index.coverage(tokens)` of the document.

    Args:
        tokens: integers [n].
    """
    stretches: list[tuple[int, int]] = []
    firsts, ends = index.stretches(tokens)
    for first, end in zip(firsts.tolist(), ends.tolist(), strict=True):
        if stretches and first <= stretches[-1][1]:
            stretches[-1] = (stretches[-1][0], end)
        else:
            stretches.append((first, end))
    return stretches


def as_characters(
    stretches: Sequence[tuple[int, int]], tokens: np.ndarray, decode: Callable[[np.ndarray], str]
) -> list[tuple[int, int]]:
    """Stretches of tokens as stretches of characters of `decode(tokens)`.

    A border within a character, where a tokenizer has parted its bytes, is moved to the front of it.

    Args:
        tokens: integers [n], the document.
        decode: the text of tokens; of any of their beginnings it is the beginning of the text.
    """

    def place(token: int) -> int:
        return len(decode(tokens[:token]).rstrip(_REPLACEMENT))

    return [(place(first), place(end)) for first, end in stretches]
