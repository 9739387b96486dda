"""Unique text of whole topics."""

import numpy as np
import pytest

from megasbp.corpus.splits import SPLITS, assign_splits
from megasbp.errors import InputError
from megasbp.experiment.topic_split import topics_of, unique_by_topics

UNIQUE, ORACLE = SPLITS.index("unique"), SPLITS.index("oracle")
SUBJECTS = {
    "river": ["water", "bank", "flood", "delta", "stream", "bridge", "boat", "fish"],
    "music": ["song", "piano", "opera", "singer", "chord", "rhythm", "concert", "violin"],
    "chess": ["queen", "pawn", "rook", "opening", "endgame", "board", "master", "clock"],
}


def trained(codes: np.ndarray) -> np.ndarray:
    return np.isin(codes, [UNIQUE, ORACLE])


def test_texts_of_one_subject_are_one_topic():
    generator = np.random.default_rng(0)
    names = list(SUBJECTS) * 30
    texts = [" ".join([name, *generator.choice(SUBJECTS[name], 12)]) for name in names]
    found = topics_of(texts, 3, seed=1)
    assert len({(name, topic) for name, topic in zip(names, found.tolist(), strict=True)}) == 3
    assert np.array_equal(found, topics_of(texts, 3, seed=1))
    with pytest.raises(InputError, match="corpus.unique_topics is 91, but there are 90 documents"):
        topics_of(texts, 91, seed=1)


def test_all_topics_but_one_are_whole_and_the_counts_stay():
    clusters = np.arange(1000)
    codes = assign_splits(clusters, 0, unique=200, oracle=800, validation=50, test=50)
    topics = np.random.default_rng(0).integers(0, 20, 800)
    chosen, taken = unique_by_topics(codes, clusters, topics, seed=3)
    assert (chosen == UNIQUE).sum() == 200
    assert np.array_equal(trained(chosen), trained(codes))
    assert np.array_equal(chosen[~trained(codes)], codes[~trained(codes)])
    of_unique = topics[chosen[trained(codes)] == UNIQUE]
    whole = [topic for topic in np.unique(of_unique) if (of_unique == topic).sum() == (topics == topic).sum()]
    assert len(np.unique(of_unique)) == taken
    assert taken - 1 <= len(whole) <= taken
    other, _ = unique_by_topics(codes, clusters, topics, seed=4)
    assert set(topics[other[trained(codes)] == UNIQUE]) != set(of_unique)


def test_near_duplicates_stay_together():
    clusters = np.arange(600) // 3 * 3
    codes = assign_splits(clusters, 0, unique=150, oracle=450, validation=60, test=60)
    topics = np.random.default_rng(0).integers(0, 6, 450)
    chosen, _ = unique_by_topics(codes, clusters, topics, seed=0)
    assert (chosen == UNIQUE).sum() == 150
    for label in np.unique(clusters):
        assert len(set(chosen[clusters == label].tolist())) == 1


def test_a_count_that_clusters_cannot_make_is_refused():
    clusters = np.arange(60) // 3 * 3
    codes = np.full(60, ORACLE, np.int8)
    codes[:10] = UNIQUE
    with pytest.raises(InputError, match="1 of corpus.unique, 10, find no cluster"):
        unique_by_topics(codes, clusters, np.zeros(60, np.int64), seed=0)
