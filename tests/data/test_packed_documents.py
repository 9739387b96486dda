"""Packing: no item is lost, cut or doubled, rows are well filled, long documents keep every prediction."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from data_reference import EOS, batch_rows, random_documents, reference_row, same_batch, write_dataset

import megasbp._C as core
from megasbp.data import document_plan, packing
from megasbp.data.documents import PackedDocuments
from megasbp.errors import InputError

LENGTHS = [7, 0, 1, 30, 2, 16, 17, 31, 32, 3, 90, 5]


def reference_best_fit(lengths, capacity):
    """Scans all rows for each item, longest first."""
    rows, room = [], []
    for item in sorted(range(len(lengths)), key=lambda item: -lengths[item]):
        fitting = [left for left in room if left >= lengths[item]]
        if fitting:
            # Among rows with equal room the one that reached it last; `touched` is the order of events.
            row = max((r for r in range(len(rows)) if room[r] == min(fitting)), key=lambda r: rows[r][0])
        else:
            rows.append([0, []])
            room.append(capacity)
            row = len(rows) - 1
        rows[row][1].append(item)
        room[row] -= lengths[item]
        rows[row][0] = 1 + max(touched for touched, _ in rows)
    return sorted(sorted(items) for _, items in rows)


def packed_rows(lengths, capacity):
    bounds, items = core.pack_best_fit(np.array(lengths, dtype=np.int64), capacity)
    return [items[first:last].tolist() for first, last in pairwise(bounds)]


@pytest.mark.parametrize("capacity", [1, 7, 64])
def test_packing_equals_the_plain_reference(capacity):
    random = np.random.default_rng(capacity)
    for items in (0, 1, 2, 30, 200):
        lengths = random.integers(1, capacity + 1, items).tolist()
        assert packed_rows(lengths, capacity) == reference_best_fit(lengths, capacity)


def test_rows_are_nearly_full_when_lengths_vary():
    lengths = np.minimum(np.random.default_rng(0).lognormal(5, 1, 20_000).astype(np.int64) + 1, 2048)
    rows = packed_rows(lengths, 2048)
    # Best fit decreasing needs at most 11/9 of the optimum (Johnson 1974); short items leave next to nothing.
    assert lengths.sum() / (len(rows) * 2048) > 0.995


@pytest.mark.parametrize("length", [0, 65])
def test_items_that_fit_no_row_are_refused(length):
    with pytest.raises(ValueError, match=f"item 1 of length {length}"):
        packed_rows([3, length], 64)


def test_groups_bound_what_is_packed_together(monkeypatch):
    monkeypatch.setattr(packing, "GROUP_ITEMS", 10)
    bounds, items = packing.pack(np.ones(25, dtype=np.int64), 100)
    assert bounds.tolist() == [0, 10, 20, 25]
    assert items.tolist() == list(range(25))


@pytest.fixture
def documents():
    return random_documents(LENGTHS)


@pytest.fixture
def dataset(tmp_path, documents):
    return write_dataset(tmp_path / "x", documents)


def test_rows_hold_their_documents_and_padding(dataset, documents):
    source = PackedDocuments(dataset, 90)
    expected = [
        reference_row([(documents[item], 0) for item in source.row_items(row)], 90, padding=EOS)
        for row in range(source.samples_per_epoch)
    ]
    assert batch_rows(source.batch(np.arange(source.samples_per_epoch))) == expected


def test_each_document_with_tokens_is_in_one_row_once(dataset):
    source = PackedDocuments(dataset, 90)
    items = [item for row in range(source.samples_per_epoch) for item in source.row_items(row).tolist()]
    assert sorted(items) == [i for i, length in enumerate(LENGTHS) if length]


@pytest.mark.parametrize("length", [2, 3, 16, 31])
def test_every_token_but_a_documents_first_is_predicted_exactly_once(dataset, documents, length):
    source = PackedDocuments(dataset, length)
    batch = source.batch(np.arange(source.samples_per_epoch))
    predicted = {number: Counter() for number in range(len(documents))}
    for row, (_, labels, _, segments) in enumerate(batch_rows(batch)):
        items = source.row_items(row)
        for label, segment in zip(labels, segments, strict=True):
            if label != -100:
                predicted[int(items[segment])][label] += 1
    assert predicted == {number: Counter(document[1:]) for number, document in enumerate(documents)}


def test_a_long_documents_pieces_overlap_by_one_token(tmp_path):
    dataset = write_dataset(tmp_path / "x", [[1, 11, 12, 13, 14, 15, 2]])
    source = PackedDocuments(dataset, 4)
    assert source.batch(np.arange(2)).tokens.tolist() == [[1, 11, 12, 13], [13, 14, 15, 2]]
    assert source.row_items(1).tolist() == [0]


def test_chosen_documents_only(dataset, documents):
    source = PackedDocuments(dataset, 90, np.array([10, 3]))
    items = [item for row in range(source.samples_per_epoch) for item in source.row_items(row).tolist()]
    assert sorted(items) == [3, 10]


def test_samples_repeat_in_the_same_order(dataset):
    source = PackedDocuments(dataset, 32)
    rows = source.samples_per_epoch
    assert same_batch(source.batch(np.arange(rows)), source.batch(np.arange(5 * rows, 6 * rows)))


@pytest.mark.parametrize("threads", [2, 5])
def test_number_of_threads_does_not_change_packed_rows(dataset, threads):
    source = PackedDocuments(dataset, 32)
    rows = np.arange(source.samples_per_epoch)
    assert same_batch(source.batch(rows, threads=threads), source.batch(rows, threads=1))


def test_counts_of_a_batch(dataset):
    source = PackedDocuments(dataset, 90)
    batch = source.batch(np.arange(source.samples_per_epoch))
    assert batch.input_tokens == sum(LENGTHS)
    assert batch.valid_tokens == sum(length - 1 for length in LENGTHS if length)


def test_micro_batches_are_rows_of_the_batch(dataset):
    batch = PackedDocuments(dataset, 32).batch(np.arange(4))
    assert batch_rows(batch.rows(1, 3)) == batch_rows(batch)[1:3]


def test_fingerprint_follows_the_chosen_documents(dataset):
    fingerprints = [
        PackedDocuments(dataset, 90, np.array(chosen)).fingerprint for chosen in ([3], [4], [3, 4])
    ]
    assert len({*fingerprints, PackedDocuments(dataset, 90).fingerprint}) == 4


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ([12], r"document 12 is not in 0\.\.11"),
        ([-1], "document -1"),
        ([0.5], "integers"),
        ([1], "has a token"),
    ],
)
def test_choices_that_cannot_be_packed_are_refused(dataset, chosen, message):
    with pytest.raises(InputError, match=message):
        PackedDocuments(dataset, 32, np.array(chosen))


def plan_arrays(source):
    plan = source.plan
    return [values.tolist() for values in (plan.row_bounds, plan.documents, plan.offsets)]


@pytest.mark.parametrize("chosen", [None, [10, 3, 5]])
@pytest.mark.parametrize("group", [1, 4, 1 << 16])
def test_a_published_plan_is_the_one_in_memory(tmp_path, dataset, monkeypatch, chosen, group):
    monkeypatch.setattr(packing, "GROUP_ITEMS", group)
    monkeypatch.setattr(document_plan, "GROUP_ITEMS", group)
    chosen = None if chosen is None else np.array(chosen)
    here = PackedDocuments(dataset, 16, chosen)
    for _ in range(2):
        there = PackedDocuments(dataset, 16, chosen, plan_folder=tmp_path / "plan")
        assert plan_arrays(there) == plan_arrays(here)
        assert isinstance(there.plan.documents, np.memmap)


def test_a_published_plan_is_made_once_and_again_for_other_settings(tmp_path, dataset):
    folder = tmp_path / "plan"
    PackedDocuments(dataset, 32, plan_folder=folder)
    made = (folder / "documents.npy").stat().st_ino
    PackedDocuments(dataset, 32, plan_folder=folder)
    assert (folder / "documents.npy").stat().st_ino == made
    assert plan_arrays(PackedDocuments(dataset, 16, plan_folder=folder)) == plan_arrays(
        PackedDocuments(dataset, 16)
    )


def test_a_seed_permutes_the_rows_of_each_epoch(dataset):
    plain, shuffled = PackedDocuments(dataset, 32), PackedDocuments(dataset, 32, seed=1, name="x")
    rows = plain.samples_per_epoch
    orders = [shuffled.rows(np.arange(epoch * rows, (epoch + 1) * rows)).tolist() for epoch in range(4)]
    assert all(sorted(order) == list(range(rows)) for order in orders)
    assert len({tuple(order) for order in orders}) > 1
    assert same_batch(shuffled.batch(np.arange(rows)), plain.batch(np.array(orders[0])))
    assert shuffled.fingerprint != plain.fingerprint


def test_no_plan_is_published_when_no_document_has_a_token(tmp_path, dataset):
    with pytest.raises(InputError, match="has a token"):
        PackedDocuments(dataset, 32, np.array([1]), plan_folder=tmp_path / "plan")
    assert not (tmp_path / "plan").exists()


@pytest.mark.parametrize("content", [b"", b"not an array", b"float"])
def test_a_damaged_plan_is_named(tmp_path, dataset, content):
    source = PackedDocuments(dataset, 32, plan_folder=tmp_path / "plan")
    path = tmp_path / "plan" / "offsets.npy"
    size = path.stat().st_size
    path.unlink()
    if content == b"float":
        np.save(path, np.zeros(len(source.plan.offsets)))
    else:
        path.write_bytes(content.ljust(size, b"x"))
    with pytest.raises(InputError, match=r"offsets\.npy: .*delete its folder"):
        PackedDocuments(dataset, 32, plan_folder=tmp_path / "plan")
