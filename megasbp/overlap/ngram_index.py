"""An index of all n-grams of a corpus: is this run of tokens anywhere in it?"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

import megasbp._C as core
from megasbp.errors import InputError
from megasbp.overlap.documents import DocumentSource, content_tokens, flat_batches, token_array
from megasbp.overlap.shingles import checked_width
from megasbp.storage import Manifest, publish_manifest, publishing_folder, read_manifest

_STAGE = "n-gram index"
_HASHES = "hashes.npy"


class NgramIndex:
    """The distinct shingle hashes of a corpus, sorted.

    Membership is exact up to collisions of 64-bit hashes: a shingle of the corpus is always found; one that
    is not there is reported with a chance of about (number of n-grams) / 2**64.

    Attributes:
        hashes: uint64 [n], ascending and distinct; memory-mapped when loaded.
        width: tokens per n-gram.
    """

    def __init__(self, hashes: np.ndarray, width: int) -> None:
        self.hashes = hashes
        self.width = checked_width(width)

    @classmethod
    def build(cls, sources: Iterable[DocumentSource | np.ndarray], width: int) -> "NgramIndex":
        """Indexes every document of datasets (without its bos and eos) or token arrays, one document each.

        N-grams do not cross documents; a document shorter than the width adds none. Memory: up to 24 bytes
        per distinct n-gram while building, 8 afterwards.
        """
        builder = core.NgramSetBuilder(checked_width(width))
        for tokens, offsets in flat_batches(_documents(sources)):
            builder.add(tokens, offsets)
        return cls(builder.finish(), width)

    def __len__(self) -> int:
        return len(self.hashes)

    def without(self, other: "NgramIndex") -> "NgramIndex":
        """The n-grams that are in this index and not in the other one, which has the same width."""
        if self.width != other.width:
            raise ValueError(f"indexes of {self.width}-grams and {other.width}-grams")
        return NgramIndex(self.hashes[~_are_in(self.hashes, other.hashes)], self.width)

    def within(self, sources: Iterable[DocumentSource | np.ndarray]) -> "NgramIndex":
        """The n-grams of this index that are anywhere in the sources, which are as `build` takes them.

        With the index of some documents this is all that a corpus says of them, exactly, and the corpus is
        read past it without an index of its own. Memory: 9 bytes per n-gram of this index.
        """
        found = np.zeros(len(self), bool)
        for tokens, offsets in flat_batches(_documents(sources)):
            builder = core.NgramSetBuilder(self.width)
            builder.add(tokens, offsets)
            hashes = builder.finish()
            found[np.searchsorted(self.hashes, hashes[_are_in(hashes, self.hashes)])] = True
        return NgramIndex(self.hashes[found], self.width)

    def contains(self, tokens: np.ndarray) -> np.ndarray:
        """Whether each run of `width` tokens of a document is in the index, bool [max(n - width + 1, 0)]."""
        return core.contains_shingles(self.hashes, token_array(tokens), self.width)

    def coverage(self, tokens: np.ndarray) -> float:
        """Share of a document's tokens that lie inside an n-gram of the index; 0 below the width."""
        return self.copied(tokens)[0]

    def copied(self, tokens: np.ndarray) -> tuple[float, int]:
        """`coverage` and `longest`, for one search."""
        starts, ends = self.stretches(tokens)
        covered = _without_overlaps(starts, ends).sum()
        return float(covered / max(len(tokens), 1)), int((ends - starts).max(initial=0))

    def density(self, tokens: np.ndarray) -> float:
        """Mean length in tokens of the fragment that a token of the document lies in; 0 outside of one.

        The sum of the fragments' squared lengths over the document's length: the extractive density of
        Grusky, Naaman, Artzi, "Newsroom", NAACL 2018, with fragments of `width` tokens at least. Of two
        documents of equal coverage, the one that copies in longer stretches is denser.
        """
        return float((self.fragments(tokens) ** 2).sum() / max(len(tokens), 1))

    def fragments(self, tokens: np.ndarray) -> np.ndarray:
        """Lengths of the stretches whose every run of `width` tokens is in the index, int64, in their order.

        Of two that overlap the first has the tokens in common, so that they add up to what is covered.
        """
        return _without_overlaps(*self.stretches(tokens))

    def longest(self, tokens: np.ndarray) -> int:
        """Tokens of the longest stretch whose every run of `width` tokens is in the index; 0 without one.

        An upper bound of the longest copied passage: neighbouring n-grams may come from different places.
        """
        return self.copied(tokens)[1]

    def stretches(self, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where runs of `width` tokens are in the index one after the other: first tokens and ends.

        int64 [s] each, ascending; two stretches may overlap.
        """
        known = np.zeros(max(len(tokens) - self.width + 1, 0) + 2, np.int8)
        known[1:-1] = self.contains(tokens)
        changes = np.diff(known)
        return np.flatnonzero(changes == 1), np.flatnonzero(changes == -1) + self.width - 1

    def save(self, folder: Path) -> Manifest:
        """Publishes the index as a folder: the hashes and a manifest."""
        with publishing_folder(Path(folder)) as partial:
            np.save(partial / _HASHES, self.hashes, allow_pickle=False)
            facts = {"width": self.width, "ngrams": len(self)}
            return publish_manifest(partial, _STAGE, inputs={}, settings={}, facts=facts)

    @classmethod
    def load(cls, folder: Path) -> "NgramIndex":
        """Opens a saved index by memory map.

        Raises:
            InputError: the folder holds no whole index.
        """
        folder = Path(folder)
        manifest = read_manifest(folder)
        if manifest is None or manifest.stage != _STAGE:
            raise InputError(f"{folder}: no whole n-gram index; delete the folder and build it again")
        hashes = np.load(folder / _HASHES, mmap_mode="r", allow_pickle=False)
        return cls(hashes, manifest.facts["width"])


def _are_in(wanted: np.ndarray, hashes: np.ndarray) -> np.ndarray:
    """Whether each hash is among others; both ascend, and memory is taken for the wanted ones alone."""
    places = np.searchsorted(hashes, wanted)
    known = places < len(hashes)
    known[known] = hashes[places[known]] == wanted[known]
    return known


def _without_overlaps(starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    return ends - np.maximum(starts, np.concatenate([starts[:1], ends[:-1]]))


def _documents(sources: Iterable[DocumentSource | np.ndarray]) -> Iterator[np.ndarray]:
    for source in sources:
        if isinstance(source, np.ndarray):
            yield source
        else:
            yield from (content_tokens(source, index) for index in range(len(source)))
