import numpy as np
import pytest

from megasbp.overlap.ngram_index import NgramIndex
from megasbp.synthesis.config import SynthesisConfig
from megasbp.synthesis.filters import ALONE, FILTERS, dropped_by, duplicates, measure, verdicts

NOTHING = np.zeros(0, np.int64)


def index(*documents: np.ndarray) -> NgramIndex:
    return NgramIndex.build(list(documents), 3)


def columns(**changed: object) -> dict[str, np.ndarray]:
    row = {
        "finish_reason": "eos",
        "length": 20,
        "repeated_share": 0.0,
        "seed_copy": 0.0,
        "corpus_copy": 0.0,
        "held_out_copy": 0.0,
    }
    return {name: np.array([value]) for name, value in (row | changed).items()}


def test_measure_counts_repeated_shingles():
    # 1 2 3 | 2 3 1 | 3 1 2 | 1 2 3: the last of the four occurs earlier.
    tokens = np.array([1, 2, 3, 1, 2, 3])
    assert measure(tokens, NOTHING, index(), index()).repeated_share == 1 / 4


def test_measure_tells_seed_corpus_and_held_out_apart():
    tokens = np.arange(10)
    measured = measure(tokens, np.array([0, 1, 2]), index(tokens[3:8]), index(np.array([7, 8, 9, 50])))
    assert (measured.seed_copy, measured.corpus_copy, measured.held_out_copy) == (0.3, 0.5, 0.3)


def test_measure_of_an_empty_document_is_zero():
    measured = measure(NOTHING, np.arange(9), index(np.arange(9)), index(np.arange(9)))
    assert (measured.repeated_share, measured.seed_copy, measured.corpus_copy) == (0, 0, 0)


def test_a_good_document_passes_every_filter():
    assert not any(drop[0] for drop in verdicts(columns(), SynthesisConfig()).values())


@pytest.mark.parametrize(
    ("setting", "at_the_limit", "beyond", "name"),
    [
        ({"minimum_tokens": 5}, {"length": 5}, {"length": 4}, "too_short"),
        ({"maximum_repeated_share": 0.1}, {"repeated_share": 0.1}, {"repeated_share": 0.11}, "repetition"),
        ({"maximum_seed_copy": 0.5}, {"seed_copy": 0.5}, {"seed_copy": 0.51}, "seed_copy"),
        ({"maximum_corpus_copy": 0.5}, {"corpus_copy": 0.5}, {"corpus_copy": 0.51}, "corpus_copy"),
        ({"maximum_held_out_copy": 0.0}, {"held_out_copy": 0.0}, {"held_out_copy": 0.01}, "held_out_copy"),
        ({}, {"finish_reason": "eos"}, {"finish_reason": "length"}, "no_end"),
    ],
)
def test_each_filter_drops_beyond_its_limit_and_only_itself(setting, at_the_limit, beyond, name):
    config = SynthesisConfig(**setting)
    kept = verdicts(columns(**at_the_limit), config)
    dropped = verdicts(columns(**beyond), config)
    assert not any(drop[0] for drop in kept.values())
    assert [other for other, drop in dropped.items() if drop[0]] == [name]


def test_duplicates_are_judged_against_accepted_documents_only():
    accepted: set[int] = set()
    hashes = np.array([7, 7, 7, 8, 8], np.uint64)
    kept = np.array([False, True, True, True, False])
    assert duplicates(hashes, kept, accepted).tolist() == [False, False, True, False, True]


def test_duplicates_are_remembered_across_calls():
    accepted: set[int] = set()
    duplicates(np.array([2**64 - 1], np.uint64), np.array([True]), accepted)
    assert duplicates(np.array([2**64 - 1], np.uint64), np.array([True]), accepted).tolist() == [True]


def test_a_drop_is_counted_under_the_first_filter_in_order():
    drops = {name: np.zeros(3, bool) for name in FILTERS}
    drops["seed_copy"][1:] = True
    drops["too_short"][2] = True
    drops["duplicate"][1:] = True
    assert dropped_by(drops).tolist() == ["", "seed_copy", "too_short"]


def test_only_the_duplicate_filter_looks_beyond_one_document():
    assert set(FILTERS) - set(ALONE) == {"duplicate"}
