import numpy as np
import overlap_reference as reference
import pytest

from megasbp.errors import InputError
from megasbp.overlap.clusters import near_duplicate_clusters, rows_per_band

WIDTH = 5


def mutated(document: np.ndarray, share: float, generator: np.random.Generator) -> np.ndarray:
    """A copy with a share of its tokens replaced."""
    copy = document.copy()
    places = generator.random(len(copy)) < share
    copy[places] = generator.integers(0, 50_000, places.sum())
    return copy


def small_corpus(seed: int) -> list[np.ndarray]:
    """Originals, copies of copies, and documents below and at the width."""
    generator = np.random.default_rng(seed)
    documents = [generator.integers(0, 50_000, generator.integers(20, 80)) for _ in range(30)]
    for _ in range(30):
        documents.append(mutated(documents[generator.integers(len(documents))], 0.04, generator))
    documents += [
        np.array(tokens, np.int64) for tokens in ([], [], [1], [1], [2], [1, 2, 3, 4, 5], [1, 2, 3, 4, 5])
    ]
    return documents


def partition(labels) -> set[frozenset[int]]:
    groups: dict[int, set[int]] = {}
    for document, label in enumerate(labels):
        groups.setdefault(int(label), set()).add(document)
    return {frozenset(group) for group in groups.values()}


@pytest.mark.parametrize("threshold", (0.3, 0.5, 0.8, 1.0))
def test_clusters_equal_all_pairs_compared(threshold):
    documents = small_corpus(0)

    labels = near_duplicate_clusters(documents, width=WIDTH, threshold=threshold, seed=1)

    assert labels.tolist() == reference.clusters(documents, WIDTH, threshold)


def test_a_label_is_the_smallest_member():
    documents = small_corpus(1)

    labels = near_duplicate_clusters(documents, width=WIDTH, threshold=0.5, seed=1)

    assert labels.dtype == np.int64
    assert all(min(group) == labels[min(group)] for group in partition(labels))


def test_the_partition_does_not_depend_on_the_order():
    documents = small_corpus(2)
    order = np.random.default_rng(3).permutation(len(documents))

    labels = near_duplicate_clusters(documents, width=WIDTH, threshold=0.5, seed=1)
    shuffled = near_duplicate_clusters([documents[i] for i in order], width=WIDTH, threshold=0.5, seed=1)

    renamed = {frozenset(int(order[i]) for i in group) for group in partition(shuffled)}
    assert renamed == partition(labels)
    assert len(renamed) < len(documents)


@pytest.mark.parametrize("threshold", (0.5, 0.7, 0.8))
def test_planted_near_duplicates_at_the_threshold_are_found(threshold):
    generator = np.random.default_rng(4)
    pairs = []
    while len(pairs) < 400:
        original = generator.integers(0, 50_000, 150)
        copy = mutated(original, generator.uniform(0.01, 0.12), generator)
        # Just above the threshold is where bands miss most.
        if threshold <= reference.jaccard(original, copy, WIDTH) <= threshold + 0.1:
            pairs.append((original, copy))
    documents = [document for pair in pairs for document in pair]

    labels = near_duplicate_clusters(documents, width=WIDTH, threshold=threshold, seed=5)

    found = np.mean(labels[0::2] == labels[1::2])
    # 0.98 is promised for each pair; 0.95 is four standard deviations of 400 draws below.
    assert found >= 0.95


def test_random_documents_are_never_joined():
    generator = np.random.default_rng(6)
    documents = [generator.integers(0, 200, 120) for _ in range(3000)]

    labels = near_duplicate_clusters(documents, width=WIDTH, threshold=0.5, seed=7)

    assert labels.tolist() == list(range(3000))


def test_many_copies_of_one_page_are_cheap():
    # 20,000 copies have 2 * 10**8 pairs in each band; without joining equal sets first this takes minutes.
    page = np.arange(60)

    labels = near_duplicate_clusters((page for _ in range(20_000)), width=WIDTH, threshold=0.7, seed=8)

    assert not labels.any()


def test_documents_are_batched_without_effect(monkeypatch):
    documents = small_corpus(9)
    whole = near_duplicate_clusters(documents, width=WIDTH, threshold=0.5, seed=1)
    monkeypatch.setattr("megasbp.overlap.documents._TOKENS_AT_ONCE", 100)

    batched = near_duplicate_clusters(iter(documents), width=WIDTH, threshold=0.5, seed=1)

    assert np.array_equal(batched, whole)


def test_no_documents_give_no_labels():
    assert near_duplicate_clusters([], width=WIDTH, threshold=0.5, seed=0).shape == (0,)


@pytest.mark.parametrize("threshold", (0.05, 0.3, 0.5, 0.7, 0.9, 1.0))
def test_bands_find_the_threshold(threshold):
    rows = rows_per_band(threshold)

    assert 1 - (1 - threshold**rows) ** (128 // rows) >= 0.98


@pytest.mark.parametrize("threshold", (0.0, -0.1, 1.1, 0.001, float("nan")))
def test_impossible_thresholds_are_refused(threshold):
    with pytest.raises(InputError, match="duplicate threshold"):
        near_duplicate_clusters([], width=WIDTH, threshold=threshold, seed=0)
