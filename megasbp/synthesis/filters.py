"""Which generated documents are kept.

Every document is measured once; each filter is then a comparison of recorded columns, so the provenance shows
by how much a document failed. All filters judge all documents. A dropped document is counted under the first
filter, in the order of `FILTERS`, that drops it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from megasbp.overlap.ngram_index import NgramIndex
from megasbp.overlap.shingles import repeated_share
from megasbp.synthesis.config import SynthesisConfig

# Name of each filter, in the order in which drops are counted -> what to change when it drops too much.
FILTERS = {
    "no_end": "raise synthesis.maximum_tokens or the context, or lower synthesis.temperature",
    "too_short": "lower synthesis.minimum_tokens",
    "repetition": "raise synthesis.maximum_repeated_share or synthesis.temperature",
    "seed_copy": "raise synthesis.maximum_seed_copy, or lower pairing.maximum_jaccard and tune again",
    "corpus_copy": "raise synthesis.maximum_corpus_copy or synthesis.temperature, or tune for fewer epochs",
    "held_out_copy": "raise synthesis.maximum_held_out_copy, or split by stricter duplicate clusters",
    "duplicate": "raise synthesis.temperature or synthesis.top_p",
}

# Those that look at one document alone, so that shards can be made in any order.
ALONE = tuple(name for name in FILTERS if name != "duplicate")


@dataclass(frozen=True)
class Measurements:
    """What the filters compare; shares in [0, 1].

    Attributes:
        repeated_share: share of the document's shingles that occur earlier in it.
        seed_copy: share of its tokens inside a shingle of its seed document.
        corpus_copy: the same for any corpus document.
        held_out_copy: the same for validation and test text, but for shingles that the corpus has too.
    """

    repeated_share: float
    seed_copy: float
    corpus_copy: float
    held_out_copy: float


def measure(
    tokens: np.ndarray, seed_tokens: np.ndarray, corpus_index: NgramIndex, held_out_index: NgramIndex
) -> Measurements:
    """Measures one document.

    Args:
        tokens: integers [n], the document without bos and eos.
        seed_tokens: integers [m], its seed document, likewise.
    """
    width = corpus_index.width
    return Measurements(
        repeated_share=repeated_share(tokens, width),
        seed_copy=NgramIndex.build([seed_tokens], width).coverage(tokens),
        corpus_copy=corpus_index.coverage(tokens),
        held_out_copy=held_out_index.coverage(tokens),
    )


def verdicts(columns: Mapping[str, np.ndarray], config: SynthesisConfig) -> dict[str, np.ndarray]:
    """For each filter that looks at one document alone, whether it drops: name -> bool [documents].

    Args:
        columns: "finish_reason" (str), "length" (int) and the fields of `Measurements`, each [documents].
    """
    return {
        "no_end": columns["finish_reason"] != "eos",
        "too_short": columns["length"] < config.minimum_tokens,
        "repetition": columns["repeated_share"] > config.maximum_repeated_share,
        "seed_copy": columns["seed_copy"] > config.maximum_seed_copy,
        "corpus_copy": columns["corpus_copy"] > config.maximum_corpus_copy,
        "held_out_copy": columns["held_out_copy"] > config.maximum_held_out_copy,
    }


def duplicates(text_hashes: np.ndarray, kept: np.ndarray, accepted_hashes: set[int]) -> np.ndarray:
    """Whether each document equals an earlier accepted one, bool [documents].

    Args:
        text_hashes: uint64 [documents].
        kept: bool [documents], not dropped by any other filter.
        accepted_hashes: of the documents accepted so far; those accepted here are added.
    """
    result = np.zeros(len(text_hashes), bool)
    for row, text_hash in enumerate(text_hashes.tolist()):
        result[row] = text_hash in accepted_hashes
        if kept[row]:
            accepted_hashes.add(text_hash)
    return result


def dropped_by(drops: Mapping[str, np.ndarray]) -> np.ndarray:
    """The first filter that drops each document, str [documents]; "" for an accepted one.

    Args:
        drops: name -> bool [documents], for every name of `FILTERS`.
    """
    names = list(FILTERS)
    columns = np.stack([drops[name] for name in names])
    return np.where(columns.any(axis=0), np.array(names)[columns.argmax(axis=0)], "")
