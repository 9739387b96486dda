"""Shingles: runs of `width` consecutive tokens, hashed to 64 bits; what documents share is counted in them.

Similarities are exact up to collisions of the 64-bit hashes. A document shorter than the width is, as a set,
the one shingle of its whole length: equal short documents are duplicates (similarity 1), others share
nothing. An empty document shares nothing with anything, not even with another empty one.
"""

import re
from collections.abc import Iterable, Sequence

import numpy as np

import megasbp._C as core
from megasbp.errors import InputError
from megasbp.overlap.documents import DocumentSource, content_tokens, flatten, token_array

# Scripts that put no spaces between words: there each character is a word.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai and Lao, Burmese, Khmer
    "\u3040-\u30ff"  # kana
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
)
_WORD = re.compile(f"[{_UNSPACED}]|[^\\W{_UNSPACED}]+")
# Both sides of a block are held as shingle sets: 8 bytes per token of up to this many documents a side.
_PAIRS_AT_ONCE = 4096


def checked_width(width: int) -> int:
    """The width, if it is one.

    Raises:
        InputError: below 1.
    """
    if width < 1:
        raise InputError(f"shingle width {width}: must be at least 1 (13 tokens or 5 words are usual)")
    return width


def shingle_hashes(tokens: np.ndarray, width: int) -> np.ndarray:
    """The hash of every run of `width` tokens, in order; frozen, so that saved hashes stay valid.

    Args:
        tokens: integers [n] in [0, 2**32).

    Returns:
        uint64 [max(n - width + 1, 0)].
    """
    return core.shingle_hashes(token_array(tokens), checked_width(width))


def jaccard(a: np.ndarray, b: np.ndarray, width: int) -> float:
    """Jaccard similarity |A and B| / |A or B| of the shingle sets of two token sequences, in [0, 1]."""
    return float(_jaccard_block([a], np.zeros(1, np.int64), [b], np.zeros(1, np.int64), width)[0])


def jaccard_pairs(
    dataset_a: DocumentSource | Sequence[np.ndarray],
    ids_a: np.ndarray,
    dataset_b: DocumentSource | Sequence[np.ndarray],
    ids_b: np.ndarray,
    width: int,
) -> np.ndarray:
    """Jaccard similarity of document ids_a[i] of one dataset with document ids_b[i] of another or the same.

    Args:
        dataset_a, dataset_b: indexed datasets (whose bos and eos are left out) or sequences of token arrays.
        ids_a, ids_b: document numbers, integers [n].

    Returns:
        float64 [n].
    """
    ids_a, ids_b = np.asarray(ids_a), np.asarray(ids_b)
    if ids_a.shape != ids_b.shape or ids_a.ndim != 1:
        raise ValueError(
            f"ids_a {ids_a.shape} and ids_b {ids_b.shape} must be one-dimensional and of equal length"
        )
    result = np.empty(len(ids_a), np.float64)
    for start in range(0, len(ids_a), _PAIRS_AT_ONCE):
        block = slice(start, start + _PAIRS_AT_ONCE)
        unique_a, rows_a = np.unique(ids_a[block], return_inverse=True)
        unique_b, rows_b = np.unique(ids_b[block], return_inverse=True)
        result[block] = _jaccard_block(
            [content_tokens(dataset_a, int(document)) for document in unique_a],
            rows_a,
            [content_tokens(dataset_b, int(document)) for document in unique_b],
            rows_b,
            width,
        )
    return result


def repeated_share(tokens: np.ndarray, width: int) -> float:
    """Share of a document's shingles that occur earlier in the same document; 0 below the width."""
    return core.repeated_share(token_array(tokens), checked_width(width))


def word_hashes(text: str) -> np.ndarray:
    """The lower-cased words of a text as 32-bit hashes, uint32 [words]: tokens before there is a tokenizer.

    A word is a run of letters, digits and underscores; punctuation is left out. In scripts without spaces
    every character is a word.
    """
    return core.hash_words(" ".join(_WORD.findall(text.lower())).encode("utf-8", errors="replace"))


def _jaccard_block(
    documents_a: Iterable[np.ndarray],
    rows_a: np.ndarray,
    documents_b: Iterable[np.ndarray],
    rows_b: np.ndarray,
    width: int,
) -> np.ndarray:
    return core.jaccard_rows(
        *flatten(documents_a),
        rows_a.astype(np.int64, copy=False),
        *flatten(documents_b),
        rows_b.astype(np.int64, copy=False),
        checked_width(width),
    )
