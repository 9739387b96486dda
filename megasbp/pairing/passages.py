"""Passages: long documents in parts that fit beside each other in the synthesizer's context."""

import numpy as np

from megasbp.corpus.tokenizer import Tokenizer

_PARAGRAPH, _SENTENCE = 2, 1
_SENTENCE_ENDS = (".", "!", "?", "…", "。", "！", "？")
_CLOSERS = "\"')]}”’»"
_MAXIMUM_CUT_SHARE = 0.2


def longest_unit(context: int) -> int:
    """Tokens of a document, without bos and eos, that are never cut as a seed: half the context less two."""
    return context // 2 - 2


def needs_passages(lengths: np.ndarray, context: int) -> bool:
    """Whether more than 20% of the documents would be cut.

    Args:
        lengths: integers [n], tokens of each document without bos and eos.
        context: tokens of a pair sequence.
    """
    return (
        len(lengths) > 0 and float(np.mean(np.asarray(lengths) > longest_unit(context))) > _MAXIMUM_CUT_SHARE
    )


def border_strengths(tokenizer: Tokenizer) -> np.ndarray:
    """How good a border lies after each token of the vocabulary.

    Returns:
        int8 [V]: 2 after a token with a line break, 1 after one that ends like a sentence, else 0.
    """
    strengths = np.zeros(tokenizer.vocabulary_size, dtype=np.int8)
    for token in range(tokenizer.vocabulary_size):
        text = tokenizer.decode(np.array([token]))
        if "\n" in text:
            strengths[token] = _PARAGRAPH
        elif text.rstrip().rstrip(_CLOSERS).endswith(_SENTENCE_ENDS):
            strengths[token] = _SENTENCE
    return strengths


def split_passages(tokens: np.ndarray, maximum: int, strengths: np.ndarray) -> list[np.ndarray]:
    """Splits a document at paragraph or sentence borders; concatenating the passages gives it back.

    The remaining tokens are aimed at equal parts, so that no short tail is left. Of the borders within a
    quarter of `maximum` around the end of an equal part the strongest is taken, then the nearest to it, then
    the earlier. Without any border the cut is made at that end.

    Args:
        tokens: integers [n], without bos and eos.
        maximum: tokens of a passage at most.
        strengths: int8 [V] of `border_strengths`.

    Returns:
        Views of `tokens`, each of 1 to `maximum` tokens; none for an empty document.

    Raises:
        ValueError: maximum < 1.
    """
    if maximum < 1:
        raise ValueError(f"maximum is {maximum}, must be at least 1")
    after = strengths[tokens]
    passages = []
    start = 0
    while len(tokens) - start > maximum:
        remaining = len(tokens) - start
        parts = -(-remaining // maximum)
        ideal = -(-remaining // parts)
        lengths = np.arange(max(1, ideal - maximum // 4), min(maximum, ideal + maximum // 4) + 1)
        border = after[start + lengths - 1]
        # lexsort's last key decides first; the sort is stable, so the earlier of two equals wins.
        best = int(lengths[np.lexsort((np.abs(lengths - ideal), -border))[0]])
        passages.append(tokens[start : start + best])
        start += best
    if start < len(tokens):
        passages.append(tokens[start:])
    return passages
