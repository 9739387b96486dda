"""Selection: band, near-duplicates, caps, parents, and drops that add up."""

from typing import Any

import numpy as np

from megasbp.pairing.config import PairingConfig
from megasbp.pairing.pairs import (
    PairSelection,
    hubness,
    in_degree_histogram,
    pair_similarity,
    select_listed,
    select_pairs,
    similarity_histogram,
)
from megasbp.pairing.search import nearest_neighbours


def config(**changes: Any) -> PairingConfig:
    wide = {
        "minimum_similarity": -1.0,
        "maximum_similarity": 1.0,
        "maximum_jaccard": 1.0,
        "maximum_per_seed": 100,
        "maximum_per_target": 100,
    }
    return PairingConfig(**{**wide, **changes})


def nothing_shared(seeds: np.ndarray, targets: np.ndarray) -> np.ndarray:
    return np.zeros(len(seeds))


def select(similarity: list, index: list, jaccard: Any = nothing_shared, **changes: Any) -> PairSelection:
    names = ("query_role", "query_documents", "corpus_documents", "forbidden_same")
    keywords = {name: changes.pop(name) for name in names if name in changes}
    arrays = np.array(similarity, np.float32), np.array(index, np.int64)
    return select_pairs(*arrays, jaccard, config(**changes), **{"query_role": "seed", **keywords})


def pairs(selection: PairSelection) -> list[tuple[int, int]]:
    table = selection.table
    return list(zip(table["seed_doc"].to_pylist(), table["target_doc"].to_pylist(), strict=True))


def test_queries_are_seeds_or_targets_as_told() -> None:
    assert pairs(select([[0.9]], [[7]], query_role="seed")) == [(0, 7)]
    assert pairs(select([[0.9]], [[7]], query_role="target")) == [(7, 0)]


def test_documents_are_named_by_the_given_ids() -> None:
    selection = select(
        [[0.9, 0.8]],
        [[1, 0]],
        query_documents=np.array([40]),
        corpus_documents=np.array([50, 60]),
        query_role="target",
    )
    assert pairs(selection) == [(50, 40), (60, 40)]
    assert selection.table["rank"].to_pylist() == [1, 0]


def test_the_band_holds_its_bounds() -> None:
    # 0.6 and 0.9 are not exact in binary; as float32 they equal the recipe's bounds.
    selection = select(
        [[0.9, 0.91, 0.6, 0.59]], [[1, 2, 3, 4]], minimum_similarity=0.6, maximum_similarity=0.9
    )
    assert pairs(selection) == [(0, 1), (0, 3)]
    assert (selection.drops["above_band"], selection.drops["below_band"]) == (1, 1)


def test_near_duplicates_are_dropped_and_the_callable_sees_seeds_and_targets_inside_the_band() -> None:
    seen = []

    def jaccard(seeds: np.ndarray, targets: np.ndarray) -> np.ndarray:
        seen.append((seeds.tolist(), targets.tolist()))
        return np.array([0.3, 0.2])

    selection = select(
        [[0.9, 0.8, 0.1]],
        [[1, 2, 3]],
        jaccard,
        query_role="target",
        minimum_similarity=0.5,
        maximum_jaccard=0.2,
    )
    assert seen == [([1, 2], [0, 0])]
    assert pairs(selection) == [(2, 0)]
    np.testing.assert_allclose(selection.table["jaccard"], [0.2], rtol=1e-6)


def test_caps_keep_the_most_similar_and_then_the_lower_ids() -> None:
    # Target 9 is everyone's neighbour; three seeds tie at 0.7.
    selection = select([[0.7], [0.7], [0.8], [0.7]], [[9], [9], [9], [9]], maximum_per_target=2)
    assert pairs(selection) == [(0, 9), (2, 9)]
    assert selection.drops["target_cap"] == 2
    selection = select([[0.7, 0.7, 0.8]], [[5, 4, 6]], maximum_per_seed=2)
    assert pairs(selection) == [(0, 4), (0, 6)]
    assert selection.drops["seed_cap"] == 1


def test_passages_of_one_article_never_pair() -> None:
    selection = select([[0.9, 0.8]], [[1, 2]], forbidden_same=np.array([0, 0, 1]))
    assert pairs(selection) == [(0, 2)]
    assert selection.drops["same_parent"] == 1


def test_missing_neighbours_are_no_candidates() -> None:
    selection = select([[0.9, -np.inf]], [[1, -1]])
    assert selection.candidates == 1
    assert pairs(selection) == [(0, 1)]


def test_drops_and_pairs_add_up_and_every_limit_holds_on_random_vectors() -> None:
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(200, 5)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    similarity, index = nearest_neighbours(vectors, vectors, 20, exclude_same_row=True)
    parents = generator.integers(0, 60, size=200)

    def shared(seeds: np.ndarray, targets: np.ndarray) -> np.ndarray:
        return ((seeds + targets) % 10) / 10

    limits = config(
        minimum_similarity=0.7,
        maximum_similarity=0.98,
        maximum_jaccard=0.7,
        maximum_per_seed=6,
        maximum_per_target=5,
    )
    selection = select_pairs(
        similarity, index, shared, limits, query_role="target", forbidden_same=parents, source="test"
    )
    table = selection.table
    seeds, targets = table["seed_doc"].to_numpy(), table["target_doc"].to_numpy()
    assert selection.candidates == 200 * 20 == table.num_rows + sum(selection.drops.values())
    assert all(count > 0 for count in selection.drops.values())
    assert np.bincount(seeds).max() == 6 and np.bincount(targets).max() == 5
    assert (parents[seeds] != parents[targets]).all()
    assert (shared(seeds, targets) <= 0.7).all()
    products = (vectors[seeds] * vectors[targets]).sum(axis=1)
    np.testing.assert_allclose(table["similarity"], products, atol=1e-6)  # rounded to 2**-20
    assert products.min() > 0.7 - 1e-6 and products.max() < 0.98 + 1e-6


def test_the_histogram_counts_every_similarity_once() -> None:
    histogram = similarity_histogram(np.array([[0.5, 0.54, 1.0000001], [-1.0, 0.05, -np.inf]]), 0.1)
    counted = {round(e, 1): n for e, n in zip(histogram["edges"], histogram["counts"], strict=False) if n}
    assert counted == {0.5: 2, 0.9: 1, -1.0: 1, 0.0: 1}


def test_hubness_of_a_hub_computed_by_hand() -> None:
    # In-degrees 4, 0, 0, 0, 0: mean 0.8, variance 2.56, third moment 12.288, skewness 12.288 / 2.56**1.5 = 3.
    figures = hubness(np.array([[0, 0], [0, 0], [-1, -1]]), 5)
    assert figures["maximum"] == 4 and figures["mean"] == 0.8 and figures["never"] == 0.8
    np.testing.assert_allclose(figures["skewness"], (3.2**3 - 4 * 0.8**3) / 5 / 2.56**1.5, rtol=1e-12)


def test_equal_in_degrees_have_no_hubness() -> None:
    assert hubness(np.array([1, 2, 0]), 3)["skewness"] == 0.0


def listed(pairs: list[tuple[int, int]], jaccard: Any = nothing_shared, **changes: Any) -> PairSelection:
    keywords = {name: changes.pop(name) for name in ("similarity", "forbidden_same") if name in changes}
    seeds, targets = np.array(pairs, np.int64).T
    return select_listed(seeds, targets, jaccard, config(**changes), source="list", **keywords)


def test_listed_pairs_are_kept_once_and_counted() -> None:
    selection = listed([(2, 1), (0, 1), (2, 1), (3, 3), (2, 1)], forbidden_same=np.arange(4))
    assert pairs(selection) == [(0, 1), (2, 1)]
    assert (selection.drops["duplicate"], selection.drops["same_parent"]) == (2, 1)
    assert selection.candidates == 5 == selection.table.num_rows + sum(selection.drops.values())
    assert selection.table["source"].to_pylist() == ["list"] * 2
    assert np.isnan(selection.table["similarity"]).all()


def test_listed_pairs_fill_the_caps_in_their_own_order() -> None:
    selection = listed([(5, 9), (4, 9), (1, 9), (1, 8)], maximum_per_target=2)
    assert pairs(selection) == [(1, 8), (4, 9), (5, 9)]
    assert selection.drops["target_cap"] == 1
    assert selection.offered_targets.tolist() == [9, 9, 9, 8]


def test_listed_near_duplicates_are_dropped_and_similarity_decides_nothing() -> None:
    def jaccard(seeds: np.ndarray, targets: np.ndarray) -> np.ndarray:
        return np.where(seeds == 1, 0.9, 0.0)

    def similarity(seeds: np.ndarray, targets: np.ndarray) -> np.ndarray:
        return seeds / 10

    selection = listed(
        [(0, 4), (1, 4), (2, 4)],
        jaccard,
        similarity=similarity,
        maximum_jaccard=0.5,
        minimum_similarity=0.5,
    )
    assert pairs(selection) == [(0, 4), (2, 4)]
    assert selection.drops["near_duplicate"] == 1
    np.testing.assert_allclose(selection.table["similarity"], [0.0, 0.2], rtol=1e-6)


def test_the_similarity_of_a_pair_is_the_inner_product() -> None:
    generator = np.random.default_rng(0)
    first, second = (generator.normal(size=(size, 7)).astype(np.float32) for size in (5, 6))
    seeds, targets = np.array([0, 4, 4]), np.array([5, 0, 3])
    found = pair_similarity(first, second, seeds, targets)
    np.testing.assert_allclose(found, (first @ second.T)[seeds, targets], rtol=1e-5)


def test_in_degrees_are_counted_in_whole_bins() -> None:
    found = np.array([0, 0, 0, 2, 2, -1])
    assert in_degree_histogram(found, 5) == {"edges": [0, 1, 2, 3, 4], "counts": [3, 0, 1, 1]}
    assert in_degree_histogram(found, 5, maximum_bins=2) == {"edges": [0, 2, 4], "counts": [3, 2]}
