"""Pair sequences `bos d1 sep d2 eos`: cuts, masks, packing, order, and the published plan."""

import numpy as np
import pytest
from data_reference import (
    BOS,
    EOS,
    SEP,
    batch_rows,
    random_documents,
    reference_row,
    same_batch,
    write_dataset,
)

from megasbp.data import packing
from megasbp.data.array_file import ArrayFile
from megasbp.data.pair_plan import build_pair_plan
from megasbp.data.pairs import PairSource
from megasbp.errors import InputError

CONTEXT = 40
SEEDS = random_documents([2, 5, 19, 20, 21, 90, 12], seed=1)
TARGETS = random_documents([2, 3, 21, 22, 23, 90, 8], seed=2)


@pytest.fixture
def datasets(tmp_path):
    return write_dataset(tmp_path / "seeds", SEEDS), write_dataset(tmp_path / "targets", TARGETS)


@pytest.fixture
def pairs():
    """All 49 pairs, in a mixed order."""
    numbers = np.random.default_rng(0).permutation(len(SEEDS) * len(TARGETS))
    return numbers // len(TARGETS), numbers % len(TARGETS)


def reference_pair(seed, target, context):
    """The sequence, the number of masked first labels, and whether d1 and d2 were cut."""
    d1, d2 = seed[1:-1], target[1:-1]
    kept = d1[: context // 2 - 2]
    sequence = [BOS, *kept, SEP, *d2, EOS]
    return sequence[:context], 1 + len(kept), len(kept) < len(d1), len(sequence) > context


@pytest.mark.parametrize("context", [6, 7, CONTEXT, 41, 200])
def test_rows_equal_the_reference(datasets, pairs, context):
    source = PairSource(*datasets, *pairs, context, SEP)
    rows = range(source.samples_per_epoch)
    expected = [
        reference_row(
            [
                reference_pair(SEEDS[pairs[0][i]], TARGETS[pairs[1][i]], context)[:2]
                for i in source.row_items(row)
            ],
            context,
            padding=EOS,
        )
        for row in rows
    ]
    assert batch_rows(source.batch(np.array(rows))) == expected


@pytest.mark.parametrize("context", [6, CONTEXT, 200])
def test_cuts_are_counted(datasets, pairs, context):
    source = PairSource(*datasets, *pairs, context, SEP)
    cuts = [reference_pair(SEEDS[s], TARGETS[t], context)[2:] for s, t in zip(*pairs, strict=True)]
    assert (source.cut_seeds, source.cut_targets) == (sum(c[0] for c in cuts), sum(c[1] for c in cuts))


def test_labels_are_the_target_and_its_eos(datasets):
    source = PairSource(*datasets, np.array([1]), np.array([6]), CONTEXT, SEP)
    labels = source.batch(np.array([0])).labels[0]
    assert labels[labels != -100].tolist() == TARGETS[6][1:]


def test_a_cut_target_predicts_no_eos(datasets):
    source = PairSource(*datasets, np.array([5]), np.array([5]), CONTEXT, SEP)
    batch = source.batch(np.array([0]))
    labels = batch.labels[0]
    assert labels[labels != -100].tolist() == TARGETS[5][1 : 1 + CONTEXT - 20]
    assert EOS not in batch.tokens[0].tolist()


def test_each_pair_is_in_one_row_once(datasets, pairs):
    source = PairSource(*datasets, *pairs, CONTEXT, SEP)
    items = [item for row in range(source.samples_per_epoch) for item in source.row_items(row).tolist()]
    assert sorted(items) == list(range(len(pairs[0])))


def test_without_a_seed_rows_keep_the_plans_order(datasets, pairs):
    source = PairSource(*datasets, *pairs, CONTEXT, SEP)
    rows = source.samples_per_epoch
    assert source.rows(np.arange(2 * rows)).tolist() == [*range(rows), *range(rows)]


def test_with_a_seed_each_epoch_is_another_permutation(datasets, pairs):
    source = PairSource(*datasets, *pairs, CONTEXT, SEP, seed=5, name="train")
    rows = source.samples_per_epoch
    epochs = source.rows(np.arange(2 * rows)).reshape(2, rows)
    assert np.array_equal(np.sort(epochs, axis=1), np.tile(np.arange(rows), (2, 1)))
    assert not np.array_equal(epochs[0], epochs[1])


def test_order_changes_only_the_order(datasets, pairs):
    plain = PairSource(*datasets, *pairs, CONTEXT, SEP)
    ordered = PairSource(*datasets, *pairs, CONTEXT, SEP, seed=5)
    indices = np.arange(ordered.samples_per_epoch)
    assert same_batch(ordered.batch(indices), plain.batch(ordered.rows(indices)))


def test_published_plan_gives_the_same_samples(tmp_path, datasets, pairs, monkeypatch):
    # Small groups, so that the plan is written in several pieces.
    monkeypatch.setattr(packing, "GROUP_ITEMS", 10)
    memory = PairSource(*datasets, *pairs, CONTEXT, SEP, seed=1)
    mapped = PairSource(*datasets, *pairs, CONTEXT, SEP, seed=1, plan_folder=tmp_path / "plan")
    indices = np.arange(memory.samples_per_epoch)
    assert isinstance(mapped.plan.row_pairs, np.memmap)
    assert mapped.fingerprint == memory.fingerprint
    assert (mapped.cut_seeds, mapped.cut_targets) == (memory.cut_seeds, memory.cut_targets)
    assert same_batch(mapped.batch(indices), memory.batch(indices))


def test_published_plan_is_made_once_and_again_when_its_inputs_change(tmp_path, datasets, pairs):
    folder = tmp_path / "plan"
    build_pair_plan(folder, *datasets, *pairs, CONTEXT)
    made = (folder / "manifest.json").stat().st_ino
    build_pair_plan(folder, *datasets, *pairs, CONTEXT)
    assert (folder / "manifest.json").stat().st_ino == made
    plan = build_pair_plan(folder, *datasets, pairs[0][:5], pairs[1][:5], CONTEXT)
    assert plan.seed_documents.tolist() == pairs[0][:5].tolist()


def test_array_file_is_what_numpy_saves(tmp_path):
    pieces = [np.arange(3), np.zeros(0, dtype=np.int64), np.arange(100_000)]
    with ArrayFile(tmp_path / "x.npy") as file:
        for piece in pieces:
            file.append(piece)
    np.save(tmp_path / "y.npy", np.concatenate(pieces))
    assert (tmp_path / "x.npy").read_bytes() == (tmp_path / "y.npy").read_bytes()


def test_array_file_names_itself_when_the_device_is_full():
    with pytest.raises(OSError, match="No space left.*'/dev/full'"), ArrayFile("/dev/full") as file:
        file.append(np.zeros(100_000, dtype=np.int64))


@pytest.mark.parametrize("threads", [2, 5])
def test_number_of_threads_does_not_change_pair_rows(datasets, pairs, threads):
    source = PairSource(*datasets, *pairs, CONTEXT, SEP, seed=1)
    indices = np.arange(source.samples_per_epoch)
    assert same_batch(source.batch(indices, threads=threads), source.batch(indices, threads=1))


@pytest.mark.parametrize(
    ("seeds", "targets", "context", "message"),
    [
        ([], [], CONTEXT, "no pairs"),
        ([0], [0, 1], CONTEXT, "1 seed and 2 target documents"),
        ([7], [0], CONTEXT, r"document 7 is not in 0\.\.6"),
        ([0], [-1], CONTEXT, "document -1"),
        ([0], [0], 5, "context is 5"),
    ],
)
def test_pairs_that_cannot_be_planned_are_refused(datasets, seeds, targets, context, message):
    with pytest.raises(InputError, match=message):
        PairSource(
            *datasets, np.array(seeds, dtype=np.int64), np.array(targets, dtype=np.int64), context, SEP
        )


def test_datasets_of_two_tokenizers_are_refused(tmp_path, datasets):
    other = write_dataset(tmp_path / "other", TARGETS, tokenizer="u" * 64)
    with pytest.raises(InputError, match="pair documents of one tokenizer"):
        PairSource(datasets[0], other, np.array([0]), np.array([0]), CONTEXT, SEP)


@pytest.mark.parametrize(
    ("document", "message"), [([7, 8, EOS], "seed document 0"), ([BOS, 8, 9], "seed document 0")]
)
def test_a_document_without_bos_or_eos_is_refused(tmp_path, datasets, document, message):
    bare = write_dataset(tmp_path / "bare", [document])
    source = PairSource(bare, datasets[1], np.array([0]), np.array([0]), CONTEXT, SEP)
    with pytest.raises(InputError, match=f"{message} is not stored as `bos document eos`"):
        source.batch(np.array([0]))


def test_a_document_shorter_than_bos_and_eos_is_refused(tmp_path, datasets):
    bare = write_dataset(tmp_path / "bare", [[BOS]])
    with pytest.raises(InputError, match="document 0 is shorter than bos and eos"):
        PairSource(bare, datasets[1], np.array([0]), np.array([0]), CONTEXT, SEP)
