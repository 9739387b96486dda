import numpy as np
import overlap_reference as reference
import pytest

from megasbp.errors import InputError
from megasbp.overlap.shingles import jaccard, jaccard_pairs, repeated_share, shingle_hashes, word_hashes

# Around the width, where windows begin to exist.
LENGTHS = (0, 1, 2, 3, 4, 5, 12, 13, 14, 40)


def random_tokens(seed: int, count: int, vocabulary: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, vocabulary, count)


class StoredDocuments:
    """As an indexed dataset: documents are stored between bos and eos."""

    def __init__(self, documents: list[np.ndarray]) -> None:
        self.metadata = {"bos": 100, "eos": 101}
        self._documents = documents

    def __len__(self) -> int:
        return len(self._documents)

    def document(self, index: int, /) -> np.ndarray:
        return np.concatenate([[100], self._documents[index], [101]]).astype(np.uint16)


def test_the_shingle_hash_is_frozen():
    hashes = shingle_hashes(np.array([0, 1, 2, 3, 65535, 2**32 - 1]), 3)

    assert [f"{value:016x}" for value in hashes.tolist()] == [
        "4c8bad2287176901",
        "b5efd62cad8f478c",
        "72198d5aacb7b33d",
        "dad1326a259d0d8b",
    ]


@pytest.mark.parametrize("width", (1, 2, 3, 13))
@pytest.mark.parametrize("length", LENGTHS)
def test_rolling_hashes_equal_each_window_hashed_alone(width, length):
    tokens = random_tokens(length, length, vocabulary=2**32)

    hashes = shingle_hashes(tokens, width)

    expected = [reference.shingle_hash(list(run)) for run in reference.shingles(tokens, width)]
    assert hashes.dtype == np.uint64
    assert hashes.tolist() == expected


def test_different_windows_do_not_collide():
    # Few distinct tokens and every order of them: the hardest case for a polynomial hash.
    windows = np.stack(np.meshgrid(*[np.arange(2)] * 13, indexing="ij"), -1).reshape(-1, 13)

    hashes = {int(shingle_hashes(window, 13)[0]) for window in windows}

    assert len(hashes) == 2**13


@pytest.mark.parametrize("width", (1, 3, 5))
def test_jaccard_equals_the_reference_at_all_lengths(width):
    for a_length in LENGTHS:
        for b_length in LENGTHS:
            # Few tokens, so that the sets overlap in part.
            a, b = random_tokens(1, a_length, 3), random_tokens(2, b_length, 3)
            assert jaccard(a, b, width) == reference.jaccard(a, b, width)


def test_equal_documents_below_the_width_are_duplicates():
    assert jaccard(np.array([4, 5]), np.array([4, 5]), 13) == 1.0
    assert jaccard(np.array([4, 5]), np.array([4, 6]), 13) == 0.0


def test_empty_documents_share_nothing():
    empty = np.array([], np.int64)

    assert jaccard(empty, empty, 3) == 0.0


def test_jaccard_pairs_leave_out_bos_and_eos():
    documents = [random_tokens(seed, length, 4) for seed, length in enumerate((3, 4, 9, 30, 31, 0))]
    ids_a, ids_b = (grid.ravel() for grid in np.meshgrid(np.arange(6), np.arange(6)))

    similarities = jaccard_pairs(StoredDocuments(documents), ids_a, StoredDocuments(documents), ids_b, 4)

    expected = [reference.jaccard(documents[a], documents[b], 4) for a, b in zip(ids_a, ids_b, strict=True)]
    assert similarities.dtype == np.float64
    assert similarities.tolist() == expected


def test_jaccard_pairs_in_blocks_equal_single_pairs(monkeypatch):
    monkeypatch.setattr("megasbp.overlap.shingles._PAIRS_AT_ONCE", 7)
    documents = [random_tokens(seed, 20, 3) for seed in range(10)]
    ids_a, ids_b = random_tokens(0, 50, 10), random_tokens(1, 50, 10)

    similarities = jaccard_pairs(documents, ids_a, documents, ids_b, 2)

    assert similarities.tolist() == [
        jaccard(documents[a], documents[b], 2) for a, b in zip(ids_a, ids_b, strict=True)
    ]


def test_no_pairs_give_no_similarities():
    assert jaccard_pairs([], np.array([], np.int64), [], np.array([], np.int64), 3).shape == (0,)


@pytest.mark.parametrize("width", (1, 2, 3, 13))
def test_repeated_share_equals_the_reference(width):
    for length in LENGTHS:
        tokens = random_tokens(length, length, 3)
        assert repeated_share(tokens, width) == pytest.approx(
            reference.repeated_share(tokens, width), abs=1e-15
        )


def test_word_hashes_ignore_case_and_punctuation():
    assert np.array_equal(word_hashes("The cat, (the CAT)!"), word_hashes("the cat the cat"))


def test_word_hashes_tell_words_apart():
    hashes = word_hashes(" ".join(f"word{i}" for i in range(20_000)))

    # Birthday bound: 20,000 words have 0.05 expected collisions in 32 bits; this fixed set has none.
    assert len(np.unique(hashes)) == 20_000


def test_word_hashes_are_frozen():
    assert word_hashes("Bootstrapped pretraining").tolist() == [2390316991, 2233316458]


def test_scripts_without_spaces_have_a_word_per_character():
    assert len(word_hashes("日本語 is かな")) == 6


def test_a_text_without_words_has_no_hashes():
    assert word_hashes("?! …").shape == (0,)


@pytest.mark.parametrize("tokens", ([[1, 2]], [1.5], [-1], [2**32]))
def test_what_is_not_a_token_is_refused(tokens):
    with pytest.raises(ValueError, match="tokens must"):
        shingle_hashes(np.array(tokens), 1)


def test_a_width_of_zero_is_refused():
    with pytest.raises(InputError, match="shingle width 0: must be at least 1"):
        repeated_share(np.arange(3), 0)
