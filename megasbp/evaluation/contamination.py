"""Which share of documents has a passage in common with text that models are tested on."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from megasbp.overlap.ngram_index import NgramIndex


def contamination(
    sets: Mapping[str, Iterable[np.ndarray]], tests: Mapping[str, Iterable[np.ndarray]], width: int
) -> dict[str, Any]:
    """The share of each set's documents that hold a run of `width` tokens of a test's documents.

    Memory: 8 bytes per token of the tests.

    Args:
        sets: name -> documents, integer arrays without bos and eos; read once.
        tests: name -> documents to look for, likewise. Those shorter than the width cannot be found.
        width: tokens in common; 13 is usual (Brown et al., "Language models are few-shot learners", 2020,
            who count words).

    Returns:
        JSON-able: test -> {"documents", "short": those below the width, "shares": {set: share in [0, 1]; None
        for a set without documents}}.
    """
    indices: dict[str, NgramIndex] = {}
    found: dict[str, dict[str, Any]] = {}
    for name, documents in tests.items():
        counter = _Counted(documents, width)
        indices[name] = NgramIndex.build(counter, width)
        found[name] = {"documents": counter.documents, "short": counter.short, "shares": {}}
    for name, documents in sets.items():
        hits, count = dict.fromkeys(indices, 0), 0
        for document in documents:
            count += 1
            for test, index in indices.items():
                hits[test] += bool(index.contains(document).any())
        for test, entry in found.items():
            entry["shares"][name] = hits[test] / count if count else None
    return found


class _Counted:
    """Documents, counted while they pass."""

    def __init__(self, documents: Iterable[np.ndarray], width: int) -> None:
        self._inner, self._width = documents, width
        self.documents = self.short = 0

    def __iter__(self) -> Iterator[np.ndarray]:
        for document in self._inner:
            self.documents += 1
            self.short += len(document) < self._width
            yield document
