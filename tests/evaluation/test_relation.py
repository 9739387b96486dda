"""Do texts find their seeds: by hand, by mutation, and what is never a candidate."""

import json

import numpy as np
import pytest

from megasbp.addressing import derive_key
from megasbp.errors import InputError
from megasbp.evaluation.relation import Candidates, Queries, relation
from megasbp.pairing.embedding import unit_rows

NOTHING = np.empty(0, np.int64)


def unrelated(documents: int, key: int = 1) -> Candidates:
    return Candidates(documents, lambda seed: NOTHING, key)


def noisy_copies(documents: int, noise: float) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors of documents, and of a text for each that is its seed with noise."""
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(documents, 16))
    return unit_rows(vectors), unit_rows(vectors + noise * generator.normal(size=vectors.shape))


def test_ranks_and_similarities_computed_by_hand() -> None:
    # Of four documents each is the candidate of every other one but for the one drawn as unrelated text.
    vectors = np.eye(4, dtype=np.float32)
    texts = unit_rows(np.array([[3.0, 4, 0, 0], [0, 1, 0, 0]]))
    seeds = np.array([0, 1])
    candidates = unrelated(4)
    found = relation({"sbp": Queries(texts, seeds)}, {}, vectors, candidates, resamples=100)
    (unrelated_to_first,) = candidates.draw(0, 1)
    sbp = found["kinds"]["sbp"]
    assert found["candidates"] == 3
    assert (sbp["documents"], sbp["seeds"]) == (2, 2)
    assert sbp["similarity"]["mean"] == pytest.approx((0.6 + 1) / 2)
    # The first text is nearer to document 1 than to its seed, where that is a candidate.
    first = 1 if unrelated_to_first == 1 else 2
    assert sbp["reciprocal_rank"]["estimate"] == pytest.approx((1 / first + 1) / 2)
    assert sbp["rank_1"]["estimate"] == ((first == 1) + 1) / 2
    assert found["chance"] == {"rank_1": 1 / 3, "rank_10": 1, "reciprocal_rank": pytest.approx(11 / 18)}
    assert "true" not in found["kinds"]


def test_texts_with_the_seeds_of_others_are_at_chance() -> None:
    vectors, texts = noisy_copies(3000, noise=0.5)
    seeds = np.arange(1000)
    shuffled = np.roll(seeds, 1)
    arms = {"own": Queries(texts[:1000], seeds), "shuffled": Queries(texts[:1000], shuffled)}
    found = relation(arms, {}, vectors, unrelated(3000), count=100, resamples=500)
    own, wrong = found["kinds"]["own"], found["kinds"]["shuffled"]
    assert own["rank_1"]["low"] > 0.9
    for name, chance in found["chance"].items():
        assert wrong[name]["low"] < chance < wrong[name]["high"]
        assert abs(wrong[name]["estimate"] - chance) < 0.03
        # A document drawn at random knows nothing either.
        assert abs(found["kinds"]["unrelated"][name]["estimate"] - chance) < 0.03


def test_an_interval_knows_that_draws_of_one_seed_are_not_independent() -> None:
    vectors, texts = noisy_copies(400, noise=3.0)
    once = Queries(texts, np.arange(400))
    fourfold = Queries(np.repeat(texts, 4, axis=0), np.repeat(np.arange(400), 4))
    found = relation({"once": once, "fourfold": fourfold}, {}, vectors, unrelated(400), count=20)["kinds"]
    widths = {name: found[name]["rank_1"]["high"] - found[name]["rank_1"]["low"] for name in found}
    assert found["once"]["rank_1"]["estimate"] == found["fourfold"]["rank_1"]["estimate"]
    assert widths["fourfold"] == pytest.approx(widths["once"], rel=0.1)


def test_what_is_related_to_a_seed_is_never_its_candidate() -> None:
    candidates = Candidates(50, lambda seed: np.arange(10, 20), key=3)
    for seed in range(50):
        drawn = candidates.draw(seed, candidates.available(seed))
        assert sorted(drawn) == sorted({*range(10), *range(20, 50)} - {seed})
        # A shorter draw is the beginning of a longer one.
        assert np.array_equal(candidates.draw(seed, 5), drawn[:5])


def test_candidates_are_drawn_uniformly() -> None:
    counts = np.zeros(20)
    for key in range(4000):
        counts[Candidates(20, lambda seed: NOTHING, key).draw(7, 3)] += 1
    assert counts[7] == 0
    expected = 4000 * 3 / 19
    assert abs(np.delete(counts, 7) - expected).max() < 5 * np.sqrt(expected)


def test_a_text_that_the_embedder_knows_nothing_of_finds_nothing() -> None:
    vectors, _ = noisy_copies(30, noise=1.0)
    nothing = Queries(np.zeros((5, 16), np.float32), np.arange(5))
    found = relation({"sbp": nothing}, {}, vectors, unrelated(30), count=20)
    ranks = found["kinds"]["sbp"]["rank_10"]
    # Five seeds of which none is found: Wilson's interval, where a bootstrap would say "0 to 0".
    z = 1.959963984540054
    assert (ranks["estimate"], ranks["low"]) == (0, 0)
    assert ranks["high"] == pytest.approx(z**2 / (5 + z**2))


def test_a_true_partner_is_drawn_and_found() -> None:
    vectors, texts = noisy_copies(60, noise=0.1)
    units = np.concatenate([vectors, texts])
    partners = {seed: np.array([60 + seed]) for seed in range(30)}
    candidates = Candidates(120, lambda seed: partners.get(seed, NOTHING), key=derive_key(0, "test"))
    arms = {"sbp": Queries(np.roll(texts, 1, axis=0), np.arange(60))}
    true = relation(arms, partners, units, candidates, count=50)["kinds"]["true"]
    assert (true["documents"], true["rank_1"]["estimate"]) == (30, 1.0)


def test_the_result_is_json_and_no_texts_are_refused() -> None:
    vectors, texts = noisy_copies(30, noise=1.0)
    found = relation({"sbp": Queries(texts, np.arange(30))}, {}, vectors, unrelated(30), count=5)
    assert json.loads(json.dumps(found)) == found
    with pytest.raises(InputError, match="no synthetic documents"):
        relation({}, {}, vectors, unrelated(30))
    with pytest.raises(InputError, match="raise corpus.unique"):
        relation({"sbp": Queries(texts[:1], np.array([0]))}, {}, vectors, unrelated(2))
