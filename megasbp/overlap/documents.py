"""Token arrays on their way into the C++ core."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

# One call into C++ takes about this many tokens: long enough to hide the call, 4 MB.
_TOKENS_AT_ONCE = 1 << 20


class DocumentSource(Protocol):
    """What this room needs of an indexed dataset, whose documents are stored as `bos ... eos`."""

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Holds the token numbers "bos" and "eos"."""

    def __len__(self) -> int: ...

    def document(self, index: int, /) -> np.ndarray:
        """Tokens of a document, integers [n]."""


def token_array(tokens: np.ndarray) -> np.ndarray:
    """Tokens as a contiguous uint32 [n].

    Raises:
        ValueError: not one-dimensional, not integers, or a value outside [0, 2**32).
    """
    array = np.asarray(tokens)
    if array.ndim != 1 or (array.size > 0 and array.dtype.kind not in "ui"):
        raise ValueError(
            f"tokens must be integers of one dimension, not {array.dtype} of shape {array.shape}"
        )
    could_overflow = array.dtype.kind == "i" or array.dtype.itemsize > 4
    if array.size and could_overflow and (array.min() < 0 or array.max() >= 2**32):
        raise ValueError(f"tokens must lie in [0, 2**32), not [{array.min()}, {array.max()}]")
    return np.ascontiguousarray(array, dtype=np.uint32)


def flatten(documents: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Documents laid end to end: tokens uint32 [total], offsets int64 [documents + 1]."""
    arrays = [token_array(document) for document in documents]
    offsets = np.zeros(len(arrays) + 1, np.int64)
    np.cumsum([len(array) for array in arrays], out=offsets[1:])
    return (np.concatenate(arrays) if arrays else np.empty(0, np.uint32)), offsets


def flat_batches(documents: Iterable[np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """`flatten` of successive groups of documents, each of about a million tokens."""
    group: list[np.ndarray] = []
    tokens = 0
    for document in documents:
        group.append(document)
        # An empty document counts too, so that a run of them cannot grow the group without bound.
        tokens += len(document) + 1
        if tokens >= _TOKENS_AT_ONCE:
            yield flatten(group)
            group, tokens = [], 0
    if group:
        yield flatten(group)


def content_tokens(source: DocumentSource | Sequence[np.ndarray], index: int) -> np.ndarray:
    """A document without the bos and eos that a dataset stores around it; an array of a sequence as it is."""
    if isinstance(source, Sequence):
        return source[index]
    tokens = source.document(index)
    start = int(len(tokens) > 0 and tokens[0] == source.metadata.get("bos"))
    stop = len(tokens) - int(len(tokens) > start and tokens[-1] == source.metadata.get("eos"))
    return tokens[start:stop]
