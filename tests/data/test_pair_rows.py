"""Rows of pairs: full, lossless for the targets, and read one row a window."""

import numpy as np
import pytest
from data_reference import BOS, EOS, SEP, write_dataset

from megasbp.data.indexed_dataset import IndexedDataset
from megasbp.data.pair_rows import write_pair_rows
from megasbp.data.windows import WindowSource
from megasbp.errors import InputError

LENGTH = 32
# Every token of a text names its document and its place there, so that a row says where it comes from.
SEED_SIZES = [1, 5, 14, 15, 26, 27, 60]
TARGET_SIZES = [0, 1, 2, 15, 25, 26, 27, 60, 100]


def texts(sizes: list[int], first: int) -> list[list[int]]:
    return [
        [BOS, *range(first + 200 * number, first + 200 * number + size), EOS]
        for number, size in enumerate(sizes)
    ]


SEEDS, TARGETS, FILLERS = texts(SEED_SIZES, 1000), texts(TARGET_SIZES, 5000), texts([3, 40, 7], 9000)


@pytest.fixture
def datasets(tmp_path):
    names = {"seeds": SEEDS, "targets": TARGETS, "fillers": FILLERS}
    return [write_dataset(tmp_path / name, documents) for name, documents in names.items()]


@pytest.fixture
def pairs():
    """All 63 pairs, in a mixed order."""
    numbers = np.random.default_rng(0).permutation(len(SEEDS) * len(TARGETS))
    return numbers // len(TARGETS), numbers % len(TARGETS)


def write(folder, datasets, pairs, **changed):
    seeds, targets, fillers = datasets
    arguments = {"sequence_length": LENGTH, "separator_token": SEP, "seed": 5, "metadata": seeds.metadata}
    facts = write_pair_rows(folder / "rows", seeds, targets, *pairs, fillers, **(arguments | changed))
    return facts, IndexedDataset(folder / "rows")


def documents_of(dataset):
    return [dataset.document(number).tolist() for number in range(len(dataset))]


@pytest.mark.parametrize("length", [8, 9, LENGTH, 64, 300])
def test_every_row_is_full_and_no_document_crosses_its_end(tmp_path, datasets, pairs, length):
    facts, dataset = write(tmp_path, datasets, pairs, sequence_length=length)
    assert dataset.tokens == facts.rows * length
    assert dataset.tokens == facts.seed_tokens + facts.target_tokens + facts.filler_tokens
    ends = np.cumsum(dataset.lengths)
    assert set(range(length, dataset.tokens + 1, length)) <= set(ends.tolist())


@pytest.mark.parametrize("length", [8, 9, LENGTH, 64, 300])
def test_each_pair_stands_together_once_and_no_token_of_a_target_is_lost(tmp_path, datasets, pairs, length):
    facts, dataset = write(tmp_path, datasets, pairs, sequence_length=length)
    found, heads, later = [], [], []
    for document in documents_of(dataset):
        if SEP in document:
            place = document.index(SEP)
            heads.append((document[:place], document[place + 1 :]))
        elif document[0] != BOS:
            later += document
    assert facts.pairs == len(heads) == len(pairs[0])
    expected = []
    for first, second in zip(*pairs, strict=True):
        d1, d2 = SEEDS[first], TARGETS[second][1:]
        # As much of d1 as d2 leaves room for, an eighth of a row at least.
        kept = d1[: 1 + min(len(d1) - 2, max(length - 2 - len(d2), length // 8))]
        expected.append((kept, d2[: length - 1 - len(kept)]))
        found += d2[length - 1 - len(kept) :]
    assert sorted(heads) == sorted(expected)
    assert sorted(later) == sorted(found)
    assert facts.target_tokens == sum(len(TARGETS[second]) for second in pairs[1])
    assert facts.cut_seeds == sum(
        len(kept) < len(SEEDS[first]) - 1 for (kept, _), first in zip(expected, pairs[0], strict=True)
    )
    assert facts.parted_targets == sum(head[-1:] != [EOS] for _, head in expected)


def test_rows_end_with_beginnings_of_other_documents_none_twice_before_all(tmp_path, datasets):
    alone = np.array([6]), np.array([8])
    facts, dataset = write(tmp_path, datasets, alone, sequence_length=600)
    fillers = documents_of(dataset)[1:]
    assert sum(map(len, fillers)) == facts.filler_tokens == 600 - facts.seed_tokens - facts.target_tokens
    # The last one is cut at the row's end; all others are whole.
    whole = [FILLERS.index(filler) for filler in fillers[:-1]]
    assert any(filler[: len(fillers[-1])] == fillers[-1] for filler in FILLERS)
    rounds = [whole[first : first + 3] for first in range(0, len(whole), 3)]
    assert len(rounds) > 2
    assert all(sorted(one) == [0, 1, 2] for one in rounds[:-1])


def test_aligned_windows_are_the_rows_each_once_an_epoch(tmp_path, datasets, pairs):
    facts, dataset = write(tmp_path, datasets, pairs)
    source = WindowSource(dataset, LENGTH, seed=3, name="rows", aligned=True)
    assert source.samples_per_epoch == facts.rows
    starts = source.starts(np.arange(2 * facts.rows)).reshape(2, facts.rows)
    assert [sorted(epoch) for epoch in starts.tolist()] == [[LENGTH * row for row in range(facts.rows)]] * 2
    assert starts[0].tolist() != starts[1].tolist()
    stream = np.concatenate(documents_of(dataset))
    batch = source.batch(np.arange(facts.rows))
    assert batch.tokens.numpy().tolist() == stream.reshape(-1, LENGTH)[starts[0] // LENGTH].tolist()


def test_a_pair_is_one_segment_and_every_token_of_it_is_learned(tmp_path, datasets):
    _, dataset = write(tmp_path, datasets, (np.array([1]), np.array([3])))
    batch = WindowSource(dataset, LENGTH, seed=3, name="rows", aligned=True).batch(np.array([0]))
    pair = [*SEEDS[1][:-1], SEP, *TARGETS[3][1:]]
    assert batch.tokens[0, : len(pair)].tolist() == pair
    assert batch.labels[0, : len(pair) - 1].tolist() == pair[1:]
    assert len(set(batch.segments[0, : len(pair)].tolist())) == 1
    assert batch.segments[0, len(pair)] != batch.segments[0, 0]


def test_alignment_changes_nothing_for_those_who_do_not_ask(datasets):
    plain, aligned = (
        WindowSource(datasets[0], 8, seed=3, name="x", **options) for options in ({}, {"aligned": True})
    )
    assert plain.fingerprint != aligned.fingerprint
    assert WindowSource(datasets[0], 8, seed=3, name="x", aligned=False).fingerprint == plain.fingerprint


def test_fewer_rows_are_drawn_from_all(tmp_path, datasets, pairs):
    every, _ = write(tmp_path / "all", datasets, pairs)
    facts, dataset = write(tmp_path / "some", datasets, pairs, maximum_rows=9)
    assert facts.rows == 9 < every.rows and dataset.tokens == 9 * LENGTH
    assert write(tmp_path / "more", datasets, pairs, maximum_rows=10**6)[0] == every


def test_equal_arguments_give_equal_bytes_and_another_seed_another_order(tmp_path, datasets, pairs):
    files = [
        write(tmp_path / name, datasets, pairs, seed=seed)[1].prefix.with_suffix(".bin").read_bytes()
        for name, seed in (("a", 5), ("b", 5), ("c", 6))
    ]
    assert files[0] == files[1] != files[2]


@pytest.mark.parametrize(
    ("changed", "message"),
    [({"sequence_length": 7}, "need at least 8 tokens"), ({}, "no pairs to put in rows")],
)
def test_impossible_rows_are_refused(tmp_path, datasets, changed, message):
    none = np.zeros(0, np.int64), np.zeros(0, np.int64)
    with pytest.raises(InputError, match=message):
        write(tmp_path, datasets, none, **changed)
