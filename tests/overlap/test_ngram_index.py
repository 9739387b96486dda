import numpy as np
import overlap_reference as reference
import pytest

from megasbp.errors import InputError
from megasbp.overlap import documents as documents_module
from megasbp.overlap.ngram_index import NgramIndex
from megasbp.overlap.shingles import shingle_hashes

LENGTHS = (0, 1, 2, 3, 4, 9, 30)


def random_documents(seed: int, vocabulary: int = 4) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [generator.integers(0, vocabulary, length) for length in LENGTHS]


class StoredDocuments:
    """As an indexed dataset: documents are stored between bos and eos."""

    def __init__(self, documents: list[np.ndarray]) -> None:
        self.metadata = {"bos": 100, "eos": 101}
        self._documents = documents

    def __len__(self) -> int:
        return len(self._documents)

    def document(self, index: int, /) -> np.ndarray:
        return np.concatenate([[100], self._documents[index], [101]]).astype(np.uint16)


@pytest.mark.parametrize("width", (1, 2, 3, 5))
def test_contains_equals_the_reference(width):
    corpus, queries = random_documents(0), random_documents(1)
    known = {run for document in corpus for run in reference.shingles(document, width)}

    index = NgramIndex.build(corpus, width)

    for query in queries:
        expected = [run in known for run in reference.shingles(query, width)]
        found = index.contains(query)
        assert found.dtype == np.bool_
        assert found.tolist() == expected
    assert len(index) == len(known)


@pytest.mark.parametrize("width", (1, 2, 3, 5))
def test_coverage_and_longest_equal_the_reference(width):
    corpus, queries = random_documents(2, 3), random_documents(3, 3)

    index = NgramIndex.build(corpus, width)

    for query in queries:
        assert index.coverage(query) == pytest.approx(reference.coverage(corpus, query, width), abs=1e-15)
        assert index.longest(query) == reference.longest(corpus, query, width)


def test_a_copied_passage_is_measured_exactly():
    generator = np.random.default_rng(4)
    source = generator.integers(0, 2**32, 500)
    novel = generator.integers(0, 2**32, 80)

    index = NgramIndex.build([source], 13)
    mixed = np.concatenate([novel[:30], source[100:150], novel[30:], source[7:20]])

    assert index.longest(mixed) == 50
    assert index.coverage(mixed) == (50 + 13) / len(mixed)


def test_what_another_index_has_is_left_out():
    corpus, others = random_documents(0), random_documents(1)
    known, left_out = (
        {run for document in documents for run in reference.shingles(document, 3)}
        for documents in (corpus, others)
    )
    index = NgramIndex.build(corpus, 3).without(NgramIndex.build(others, 3))
    assert len(index) == len(known - left_out) < len(known)
    for query in corpus:
        assert index.contains(query).tolist() == [run not in left_out for run in reference.shingles(query, 3)]
    with pytest.raises(ValueError, match="3-grams and 4-grams"):
        index.without(NgramIndex.build(others, 4))


@pytest.mark.parametrize("width", (1, 2, 3, 5))
def test_what_a_corpus_says_of_documents_needs_no_index_of_the_corpus(width, monkeypatch):
    # Batches of a few documents, so that several are read past the index.
    monkeypatch.setattr(documents_module, "_TOKENS_AT_ONCE", 12)
    corpus, queries = random_documents(0, 3), random_documents(1, 3)
    whole = NgramIndex.build(corpus, width)
    found = NgramIndex.build(queries, width).within([StoredDocuments(corpus)])
    assert np.array_equal(found.hashes, np.intersect1d(whole.hashes, NgramIndex.build(queries, width).hashes))
    for query in queries:
        assert np.array_equal(found.contains(query), whole.contains(query))
        assert found.density(query) == whole.density(query)


def test_nothing_is_within_no_corpus_and_no_ngram_within_any():
    assert len(NgramIndex.build(random_documents(0), 3).within([])) == 0
    assert len(NgramIndex.build([], 3).within(random_documents(0))) == 0


def test_ngrams_do_not_cross_documents():
    index = NgramIndex.build([np.array([1, 2]), np.array([3, 4])], 3)

    assert len(index) == 0
    assert not index.contains(np.array([1, 2, 3, 4])).any()


def test_a_dataset_is_indexed_without_bos_and_eos():
    documents = random_documents(5)

    index = NgramIndex.build([StoredDocuments(documents)], 3)

    assert np.array_equal(index.hashes, NgramIndex.build(documents, 3).hashes)


def test_large_sets_are_searched_right():
    # Enough hashes for several merges while building and several probes of the interpolation search.
    tokens = np.random.default_rng(6).integers(0, 2**32, 2_500_000, dtype=np.uint32)
    inside, outside = tokens[:100_000], np.random.default_rng(7).integers(0, 2**32, 100_000, dtype=np.uint32)

    index = NgramIndex.build(np.array_split(tokens, 3), 2)

    hashes = np.sort(np.concatenate([shingle_hashes(part, 2) for part in np.array_split(tokens, 3)]))
    assert np.array_equal(index.hashes, hashes[np.diff(hashes, prepend=np.uint64(0)) > 0])
    assert index.contains(inside).all()
    known = set(index.hashes.tolist())
    assert index.contains(outside).tolist() == [
        value in known for value in shingle_hashes(outside, 2).tolist()
    ]


def test_search_survives_hashes_that_are_not_uniform():
    hashes = np.concatenate([np.arange(1000, dtype=np.uint64), ~np.arange(1000, dtype=np.uint64)[::-1]])
    own = shingle_hashes(np.array([5]), 1)

    without, with_own = NgramIndex(hashes, 1), NgramIndex(np.sort(np.concatenate([hashes, own])), 1)

    assert not without.contains(np.array([5])).any()
    assert with_own.contains(np.array([5])).all()


def test_a_saved_index_is_the_same_index(tmp_path):
    corpus = random_documents(8)
    index = NgramIndex.build(corpus, 3)

    index.save(tmp_path / "index")
    loaded = NgramIndex.load(tmp_path / "index")

    assert isinstance(loaded.hashes, np.memmap)
    assert loaded.width == 3
    assert np.array_equal(loaded.hashes, index.hashes)
    assert loaded.contains(corpus[-1]).all()


def test_an_empty_index_can_be_saved(tmp_path):
    NgramIndex.build([], 3).save(tmp_path / "index")

    assert len(NgramIndex.load(tmp_path / "index")) == 0


def test_a_cut_index_is_refused(tmp_path):
    NgramIndex.build(random_documents(9), 3).save(tmp_path / "index")
    file = tmp_path / "index" / "hashes.npy"
    file.write_bytes(file.read_bytes()[:-8])

    with pytest.raises(InputError, match="no whole n-gram index; delete the folder"):
        NgramIndex.load(tmp_path / "index")


def test_a_missing_index_is_refused(tmp_path):
    with pytest.raises(InputError, match="nowhere: no whole n-gram index"):
        NgramIndex.load(tmp_path / "nowhere")
