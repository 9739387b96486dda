"""What a pair is worth: the table by hand, intervals that cover, and refusals."""

import json

import numpy as np
import pytest

from megasbp.errors import InputError
from megasbp.evaluation.pair_value import pair_value


def simulated(worth: float, pairs: int, clusters: int, seed: int) -> dict:
    """Pairs whose cluster shares most of the noise; the true seed saves `worth` nats per token on average."""
    generator = np.random.default_rng(seed)
    members = generator.integers(0, clusters, size=pairs)
    tokens = generator.integers(20, 60, size=pairs)
    saved = worth + generator.normal(0, 0.1, size=clusters)[members] + generator.normal(0, 0.05, size=pairs)
    true = tokens * generator.uniform(3, 5, size=pairs)
    return {"nats": {"true": true, "random": true + tokens * saved}, "tokens": tokens, "clusters": members}


def test_the_table_computed_by_hand() -> None:
    result = pair_value(
        {
            "true": np.array([2.0, 6.0, 4.0]),
            "random": np.array([3.0, 6.0, 6.0]),
            "shuffled": np.array([4.0, 7.0, 7.0]),
            "none": np.array([8.0, 8.0, 8.0]),
        },
        np.array([1, 3, 2]),
        np.array([5, 5, 9]),
        np.array([0.1, 0.2, 0.9]),
        bin_edges=[0.0, 0.5, 0.9],
    )
    assert (result["pairs"], result["tokens"], result["clusters"]) == (3, 6, 2)
    assert result["losses"] == {"true": 2.0, "random": 2.5, "shuffled": 3.0, "none": 4.0}
    assert {name: row["estimate"] for name, row in result["contrasts"].items()} == {
        "worth": 0.5,
        "shuffled": 1.0,
        "untuned": 2.0,
    }
    low, high = result["by_similarity"]
    assert (low["pairs"], low["low"], low["high"], low["contrasts"]["worth"]["estimate"]) == (
        2,
        0.0,
        0.5,
        0.25,
    )
    # The last bin holds its upper edge.
    assert (high["pairs"], high["contrasts"]["worth"]["estimate"]) == (1, 1.0)
    assert high["contrasts"]["worth"]["low"] is None
    assert json.loads(json.dumps(result)) == result


def test_two_clusters_have_the_interval_of_their_four_resamples() -> None:
    # Drawing two of two clusters: {a,a}, {a,b}, {b,a}, {b,b} give 1, 2, 2 and 3 nats per token.
    result = pair_value(
        {"true": np.zeros(2), "random": np.array([10.0, 30.0])}, np.array([10, 10]), np.array([0, 1])
    )
    worth = result["contrasts"]["worth"]
    assert (worth["low"], worth["estimate"], worth["high"]) == (1.0, 2.0, 3.0)


def test_without_optional_conditions_their_contrasts_are_absent() -> None:
    assert set(pair_value(**simulated(0.1, 50, 10, 0))["contrasts"]) == {"worth"}


def test_quartiles_are_the_default_bins_and_hold_every_pair() -> None:
    values = simulated(0.1, 101, 30, 1)
    result = pair_value(**values, similarity=np.linspace(0.4, 0.9, 101))
    assert [row["pairs"] for row in result["by_similarity"]] == [25, 25, 25, 26]


def test_pairs_of_one_similarity_are_one_bin() -> None:
    result = pair_value(**simulated(0.1, 10, 5, 2), similarity=np.full(10, 0.5))
    assert [row["pairs"] for row in result["by_similarity"]] == [10]


def test_the_bootstrap_is_addressed_by_the_seed() -> None:
    values = simulated(0.1, 200, 40, 3)
    assert pair_value(**values, seed=1) == pair_value(**values, seed=1)
    intervals = {pair_value(**values, seed=seed)["contrasts"]["worth"]["low"] for seed in range(3)}
    assert len(intervals) == 3


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    covered = 0
    for seed in range(200):
        worth = pair_value(**simulated(0.05, 150, 50, seed), resamples=400, seed=seed)["contrasts"]["worth"]
        covered += worth["low"] <= 0.05 <= worth["high"]
    # 190 of 200 nominal; a percentile interval of 50 clusters loses a little. Pairs taken as independent
    # would cover about 150.
    assert 178 <= covered <= 199


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"nats": {"true": np.ones(2)}}, ValueError, "missing \\['random'\\]"),
        (
            {"nats": {"true": np.ones(2), "random": np.ones(2), "x": np.ones(2)}},
            ValueError,
            "unknown \\['x'\\]",
        ),
        ({"nats": {"true": np.ones(2), "random": np.ones(3)}}, ValueError, "random has shape"),
        ({"nats": {"true": np.ones(2), "random": np.array([1, np.inf])}}, InputError, "1 of 2 losses"),
        ({"tokens": np.array([1, 0])}, ValueError, "every target needs at least 1"),
        ({"clusters": np.array([1])}, ValueError, "clusters has shape"),
        ({"tokens": np.array([], int)}, InputError, "no held-out pairs"),
        ({"similarity": np.ones(2), "bin_edges": [1.0, 0.5]}, ValueError, "must be at least two and ascend"),
    ],
)
def test_what_does_not_fit_together_is_refused(changes: dict, error: type[Exception], message: str) -> None:
    values = {
        "nats": {"true": np.ones(2), "random": np.ones(2)},
        "tokens": np.ones(2, int),
        "clusters": np.array([0, 1]),
    }
    with pytest.raises(error, match=message):
        pair_value(**{**values, **changes})
