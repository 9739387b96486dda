import numpy as np
import pytest

from megasbp.addressing import derive_key
from megasbp.corpus.splits import SPLITS, assign_splits
from megasbp.errors import InputError


def clusters_of(sizes: list[int]) -> np.ndarray:
    """Labels as the duplicate finder gives them (smallest member), members scattered."""
    groups = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))
    smallest = {int(group): int(np.flatnonzero(groups == group)[0]) for group in groups}
    return np.array([smallest[int(group)] for group in groups], np.int64)


def counts(codes: np.ndarray) -> dict[str, int]:
    return {name: int((codes == code).sum()) for code, name in enumerate(SPLITS)}


def test_counts_are_exact():
    codes = assign_splits(
        clusters_of([1] * 80 + [2] * 20 + [9]), 0, unique=30, oracle=70, validation=11, test=13
    )

    assert codes.dtype == np.int8
    assert counts(codes) == {"unused": 45 - 10, "unique": 30, "oracle": 40, "validation": 11, "test": 13}


def test_no_cluster_is_parted():
    clusters = clusters_of([1] * 40 + [3] * 20 + [7] * 4)

    codes = assign_splits(clusters, 3, unique=30, oracle=60, validation=20, test=20)

    for label in np.unique(clusters):
        assert len(np.unique(codes[clusters == label])) == 1


def test_the_seed_decides():
    clusters = np.arange(200)

    same = [assign_splits(clusters, 5, 40, 100, 20, 20) for _ in range(2)]
    other = assign_splits(clusters, 6, 40, 100, 20, 20)

    assert np.array_equal(*same)
    assert (same[0] != other).mean() > 0.5


def test_held_out_documents_do_not_depend_on_the_training_counts():
    clusters = clusters_of([1] * 100 + [2] * 20)

    small = assign_splits(clusters, 1, unique=10, oracle=20, validation=15, test=15)
    large = assign_splits(clusters, 1, unique=40, oracle=90, validation=15, test=15)

    for name in ("validation", "test"):
        code = SPLITS.index(name)
        assert np.array_equal(small == code, large == code)


def test_unique_documents_do_not_depend_on_the_oracle():
    clusters = clusters_of([1] * 100 + [2] * 20)

    small = assign_splits(clusters, 1, unique=40, oracle=40, validation=15, test=15)
    large = assign_splits(clusters, 1, unique=40, oracle=90, validation=15, test=15)

    code = SPLITS.index("unique")
    assert np.array_equal(small == code, large == code)


def test_the_order_is_frozen():
    codes = assign_splits(np.arange(12), 7, unique=3, oracle=5, validation=2, test=2)

    assert codes.tolist() == [4, 3, 1, 3, 1, 2, 1, 0, 0, 0, 4, 2]


@pytest.mark.parametrize("seed", range(20))
def test_clusters_are_assigned_as_if_one_by_one(seed, monkeypatch):
    monkeypatch.setattr("megasbp.corpus.splits._CLUSTERS_AT_ONCE", 7)
    sizes = np.random.default_rng(seed).choice([1, 1, 1, 2, 3, 5, 8], 60)
    clusters = clusters_of(sizes.tolist())
    wanted = {"test": 9, "validation": 7, "unique": 20, "oracle": 25}
    labels, counted = np.unique(clusters, return_counts=True)
    expected = np.zeros(len(clusters), np.int8)
    room = dict(wanted)
    for _, label, size in sorted(
        (derive_key(seed, "split", int(n)), n, s) for n, s in zip(labels, counted, strict=True)
    ):
        for name, left in room.items():
            if size <= left:
                room[name] -= size
                expected[clusters == label] = SPLITS.index(name)
                break

    codes = assign_splits(clusters, seed, unique=20, oracle=45, validation=7, test=9)

    assert np.array_equal(codes, expected)


def test_too_few_documents_say_how_many_there_are():
    with pytest.raises(
        InputError, match=r"has 50 usable documents; oracle 40 \+ validation 10 \+ test 10 need 60"
    ):
        assign_splits(np.arange(50), 0, unique=20, oracle=40, validation=10, test=10)


def test_clusters_too_large_for_the_splits_are_reported():
    with pytest.raises(InputError, match=r"40 usable documents in 4 .* largest of 10.* short are test by 5"):
        assign_splits(clusters_of([10] * 4), 0, unique=10, oracle=20, validation=10, test=5)


@pytest.mark.parametrize("change", ({"unique": 31}, {"test": -1}))
def test_impossible_counts_are_refused(change):
    with pytest.raises(InputError, match="none may be negative"):
        assign_splits(np.arange(100), 0, **{"unique": 10, "oracle": 30, "validation": 5, "test": 5, **change})
