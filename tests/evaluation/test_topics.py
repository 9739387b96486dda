"""Topics: found where they are, no shift where there is none, and a shift where there is one."""

import json

import numpy as np
import pytest

from megasbp.errors import InputError
from megasbp.evaluation.topics import Topics, most_shifted, topic_shift
from megasbp.pairing.embedding import unit_rows


def drawn(count: int, shares: np.ndarray, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).choice(len(shares), size=count, p=shares)


def test_topics_are_found_where_they_are_and_do_not_depend_on_chance() -> None:
    generator = np.random.default_rng(0)
    centres = generator.normal(size=(6, 12))
    members = generator.integers(6, size=600)
    vectors = unit_rows(centres[members] + 0.1 * generator.normal(size=(600, 12)))
    topics = Topics(vectors, 6, seed=1)
    found = topics.of(vectors)
    assert len({(a, b) for a, b in zip(members, found, strict=True)}) == 6
    assert np.array_equal(Topics(vectors, 6, seed=1).centres, topics.centres)
    assert len(Topics(vectors[:45], 64, seed=1).centres) == 4
    with pytest.raises(InputError, match=r"raise corpus\.unique to at least 20"):
        Topics(vectors[:19], 64, seed=1)


def test_two_samples_of_one_text_diverge_as_no_shift_does() -> None:
    shares = np.random.default_rng(0).dirichlet(np.ones(30))
    sets = {f"sample {seed}": drawn(700, shares, seed) for seed in range(1, 21)}
    found = topic_shift(drawn(2000, shares, 0), sets, 30, seed=0)
    assert found["size"] == 700
    assert found["null"]["mean"] > 0
    beyond = [one for one in found["sets"].values() if one["divergence"] > found["null"]["p95"]]
    assert len(beyond) <= 4
    assert sum(one["lost"] + one["over_represented"] for one in found["sets"].values()) == 0


def test_a_lost_and_an_over_represented_topic_are_counted_and_move_the_divergence() -> None:
    shares = np.full(10, 0.1)
    moved = shares.copy()
    moved[3], moved[7] = 0.0, 0.3
    moved /= moved.sum()
    unique, synthetic = drawn(4000, shares, 0), drawn(1000, moved, 1)
    found = topic_shift(unique, {"sbp": synthetic}, 10, seed=0)
    assert found["sets"]["sbp"]["divergence"] > 4 * found["null"]["p95"]
    assert (found["sets"]["sbp"]["lost"], found["sets"]["sbp"]["over_represented"]) == (1, 1)
    assert most_shifted(unique, {"sbp": synthetic}, 10, 2) == [7, 3]


def test_texts_without_a_common_topic_are_one_bit_apart() -> None:
    found = topic_shift(np.zeros(50, np.int64), {"sbp": np.ones(50, np.int64)}, 2, seed=0)
    assert found["sets"]["sbp"]["divergence"] == pytest.approx(1)
    assert json.loads(json.dumps(found)) == found


def test_a_set_without_documents_is_refused() -> None:
    with pytest.raises(InputError, match="no documents"):
        topic_shift(np.zeros(50, np.int64), {"sbp": np.empty(0, np.int64)}, 2, seed=0)
