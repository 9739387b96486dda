"""Continuation: a document's beginning is the seed, what follows it the target."""

import numpy as np

from megasbp.pairing.passages import split_passages

# Of the tokens of a document, what a half has at least: a title alone is no beginning.
_SMALLEST_SHARE = 0.25


def split_continuation(tokens: np.ndarray, maximum: int, strengths: np.ndarray) -> list[np.ndarray]:
    """Splits a document in two, or into passages when a half would be longer than `maximum`.

    In two: after the paragraph border nearest the middle, else the sentence border nearest it, else in the
    middle; of two equally near the earlier. Only borders count that leave each half at least a quarter of
    the tokens and at most `maximum` of them.

    Args:
        tokens: integers [n], without bos and eos.
        maximum: tokens of a part at most.
        strengths: int8 [V] of `passages.border_strengths`.

    Returns:
        Views of `tokens` in order: two parts; passages (`split_passages`) above 2 * maximum tokens; the whole
        document when it has fewer than two tokens.

    Raises:
        ValueError: maximum < 1.
    """
    count = len(tokens)
    if count < 2 or count > 2 * maximum:
        return split_passages(tokens, maximum, strengths)
    smallest = max(1, int(np.ceil(_SMALLEST_SHARE * count)), count - maximum)
    first = np.arange(smallest, count - smallest + 1)
    border = strengths[tokens[first - 1]]
    # lexsort's last key decides first; the sort is stable, so the earlier of two equals wins.
    cut = int(first[np.lexsort((np.abs(2 * first - count), -border))[0]])
    return [tokens[:cut], tokens[cut:]]


def continuation_pairs(parents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each part with the one that follows it in the same document.

    Args:
        parents: integers [parts], the document of each part; the parts of a document lie in order.

    Returns:
        seed and target numbers, int64 [pairs].
    """
    seeds = np.flatnonzero(parents[1:] == parents[:-1])
    return seeds, seeds + 1
