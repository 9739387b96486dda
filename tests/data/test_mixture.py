"""Mixtures: exact totals, close shares at every prefix, entry anywhere."""

import math
from fractions import Fraction

import numpy as np
import pytest
from data_reference import batch_rows, random_documents, same_batch, write_dataset

import megasbp._C as core
from megasbp.data.mixture import MixtureSource
from megasbp.data.windows import WindowSource
from megasbp.errors import InputError


def reference_locate(totals, index):
    """The same tree, node by node, in Python's unbounded integers."""
    epoch, n = divmod(index, sum(totals))
    low, high = 0, len(totals)
    while high - low > 1:
        middle = (low + high) // 2
        left, whole = sum(totals[low:middle]), sum(totals[low:high])
        before, after = ((m * left + whole // 2) // whole for m in (n, n + 1))
        if after > before:
            n, high = before, middle
        else:
            n, low = n - before, middle
    return low, epoch * totals[low] + n


def random_totals(parts, random):
    scale = random.choice([3, 40, 900])
    totals = random.integers(0, scale, parts)
    totals[random.integers(parts)] += 1
    return totals.tolist()


def locate(totals, indices):
    parts, local = core.Mixture(totals).locate(np.array(indices, dtype=np.int64))
    return parts, local


@pytest.mark.parametrize("parts", [1, 2, 3, 4, 5, 7, 8, 9, 16])
def test_shares_hold_at_every_prefix_and_totals_are_exact(parts):
    random = np.random.default_rng(parts)
    for _ in range(20):
        totals = random_totals(parts, random)
        whole = sum(totals)
        owner, local = locate(totals, range(whole))
        given = np.cumsum(owner[:, None] == np.arange(parts), axis=0)
        share = np.arange(1, whole + 1)[:, None] * np.array(totals) / whole
        # The claim of principle 4 is ceil(log2 K), and one sample for two parts; the tree keeps half of it.
        # 1e-9: the shares are rounded to doubles.
        assert np.abs(given - share).max() <= math.ceil(math.log2(parts)) / 2 + 1e-9
        assert given[-1].tolist() == totals
        for part in range(parts):
            assert np.array_equal(local[owner == part], np.arange(totals[part]))


@pytest.mark.parametrize(
    "totals", [[2**60, 2**60 - 1], [1, 2**60], [2**59 + 3, 7, 2**60 - 5, 12_345], [2**62]]
)
def test_totals_of_two_to_the_sixty_are_exact(totals):
    whole = sum(totals)
    random = np.random.default_rng(1)
    indices = [0, 1, whole - 1, whole, whole + 1, *random.integers(0, whole, 200).tolist()]
    owner, local = locate(totals, indices)
    expected = [reference_locate(totals, index) for index in indices]
    assert list(zip(owner.tolist(), local.tolist(), strict=True)) == expected


def test_two_parts_stay_within_half_a_sample_at_large_totals():
    totals = [2**60 - 1, 2**59 + 1]
    indices = np.random.default_rng(2).integers(0, sum(totals), 500)
    owner, local = locate(totals, indices)
    for index, part, given in zip(indices.tolist(), owner.tolist(), local.tolist(), strict=True):
        share = Fraction(index * totals[part], sum(totals))
        # Before sample `index` its part has given exactly its local index.
        assert abs(given - share) <= Fraction(1, 2)


def test_past_the_total_the_parts_go_on():
    totals = [3, 0, 5]
    owner, local = locate(totals, range(24))
    for part, total in enumerate(totals):
        assert local[owner == part].tolist() == list(range(3 * total))


@pytest.mark.parametrize("totals", [[], [0], [0, 0], [-1, 5], [2**62, 1]])
def test_bad_totals_are_refused(totals):
    with pytest.raises(ValueError, match="samples"):
        core.Mixture(totals)


@pytest.fixture
def sources(tmp_path):
    datasets = [
        write_dataset(tmp_path / f"d{i}", random_documents([50, 33, 80, 7], seed=i)) for i in range(3)
    ]
    return [WindowSource(dataset, 16, seed=1, name=str(i)) for i, dataset in enumerate(datasets)]


def test_samples_are_the_parts_own(sources):
    mixture = MixtureSource(list(zip(sources, [5, 9, 2], strict=True)))
    indices = np.array([15, 3, 3, 0, 40, 8])
    expected = []
    for index in indices:
        part, local = mixture.locate(int(index))
        expected += batch_rows(sources[part].batch(np.array([local])))
    assert batch_rows(mixture.batch(indices)) == expected


def test_batch_of_one_part_is_the_parts_batch(sources):
    mixture = MixtureSource([(sources[0], 4)])
    assert same_batch(mixture.batch(np.arange(4)), sources[0].batch(np.arange(4)))


def test_phases_are_mixtures_one_after_the_other(sources):
    mixture = MixtureSource([(sources[0], (5, 4)), (sources[1], (3, 0)), (sources[2], (0, 2))])
    found = [mixture.locate(index) for index in range(28)]
    for first, counts in ((0, (5, 3, 0)), (8, (4, 0, 2))):
        owner, local = locate(counts, range(sum(counts)))
        before = np.array((5, 3, 0) if first else (0, 0, 0))
        expected = list(zip(owner.tolist(), (local + before[owner]).tolist(), strict=True))
        assert found[first : first + sum(counts)] == expected
    # Each part hands out its own samples in order, and goes on where the mixture begins again.
    for part, total in enumerate((9, 3, 2)):
        assert [local for owner, local in found if owner == part] == list(range(2 * total))
    indices = np.array([13, 0, 27, 8])
    rows = [sources[found[i][0]].batch(np.array([found[i][1]])) for i in indices]
    assert batch_rows(mixture.batch(indices)) == [row for one in rows for row in batch_rows(one)]


def test_one_phase_is_the_mixture_without(sources):
    plain = MixtureSource([(sources[0], 4), (sources[1], 5)])
    assert MixtureSource([(sources[0], [4]), (sources[1], [5])]).fingerprint == plain.fingerprint
    assert MixtureSource([(sources[0], [2, 2]), (sources[1], [5, 0])]).fingerprint != plain.fingerprint


def test_parts_of_different_phases_are_refused(sources):
    with pytest.raises(InputError, match="as many phases"):
        MixtureSource([(sources[0], 4), (sources[1], (2, 2))])


def test_mixtures_nest(sources):
    inner = MixtureSource([(sources[0], 2), (sources[1], 2)])
    outer = MixtureSource([(inner, 4), (sources[2], 3)])
    part, local = outer.locate(5)
    assert same_batch(outer.batch(np.array([5])), (inner, sources[2])[part].batch(np.array([local])))


def test_fingerprint_follows_totals_and_parts(sources):
    fingerprints = {
        MixtureSource([(sources[0], 4), (sources[1], 4)]).fingerprint,
        MixtureSource([(sources[0], 4), (sources[1], 5)]).fingerprint,
        MixtureSource([(sources[0], 4), (sources[2], 4)]).fingerprint,
    }
    assert len(fingerprints) == 3


def test_sources_of_different_lengths_are_refused(sources):
    other = WindowSource(sources[0].dataset, 8, seed=1, name="short")
    with pytest.raises(InputError, match=r"sequence lengths \[8, 16\]"):
        MixtureSource([(sources[0], 1), (other, 1)])


def test_mixture_of_nothing_is_refused(sources):
    with pytest.raises(InputError, match="mixture: a mixture of no samples"):
        MixtureSource([(sources[0], 0)])
