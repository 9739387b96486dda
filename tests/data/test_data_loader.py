"""The loader: the same batches for any number of ranks and any depth of prefetching."""

import threading
import time

import numpy as np
import pytest
import torch
from data_reference import batch_rows, random_documents, write_dataset

from megasbp.data.batch import Batch
from megasbp.data.loader import Loader
from megasbp.data.windows import WindowSource
from megasbp.errors import InputError


class CountingSource:
    """Row i holds the number i; `fails_at` raises when that sample is asked for."""

    sequence_length = 2
    samples_per_epoch = 10
    fingerprint = "counting"

    def __init__(self, fails_at=None):
        self.fails_at = fails_at
        self.asked = []

    def batch(self, indices):
        self.asked.append(indices.tolist())
        if self.fails_at in indices:
            raise InputError(f"sample {self.fails_at} is damaged")
        tokens = torch.from_numpy(np.repeat(indices[:, None], 2, axis=1))
        return Batch(tokens, tokens, tokens, tokens)


def numbers(loader):
    return [batch.tokens[:, 0].tolist() for batch in loader]


def loader_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("loader")]


def test_batches_follow_one_another():
    assert numbers(Loader(CountingSource(), range(3, 15), 4)) == [
        [3, 4, 5, 6],
        [7, 8, 9, 10],
        [11, 12, 13, 14],
    ]


def test_ranks_take_contiguous_slices():
    loaders = [Loader(CountingSource(), range(12), 6, rank, 3) for rank in range(3)]
    assert [numbers(loader) for loader in loaders] == [[[0, 1], [6, 7]], [[2, 3], [8, 9]], [[4, 5], [10, 11]]]


@pytest.mark.parametrize("prefetch", [0, 1, 2, 7, 100])
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_ranks_and_prefetch_do_not_change_the_samples(tmp_path, prefetch, ranks):
    dataset = write_dataset(tmp_path / "x", random_documents([40, 3, 99, 0, 17]))
    source = WindowSource(dataset, 16, seed=1, name="x")
    expected = batch_rows(source.batch(np.arange(8, 40)))
    loaders = [iter(Loader(source, range(8, 40), 8, rank, ranks, prefetch)) for rank in range(ranks)]
    rows = [row for parts in zip(*loaders, strict=True) for part in parts for row in batch_rows(part)]
    assert rows == expected


def test_resuming_is_another_start():
    whole = numbers(Loader(CountingSource(), range(0, 40), 4))
    assert numbers(Loader(CountingSource(), range(12, 40), 4)) == whole[3:]


def test_a_short_last_batch_reaches_every_rank():
    loaders = [Loader(CountingSource(), range(9), 8, rank, 4) for rank in range(4)]
    assert [len(loader) for loader in loaders] == [2] * 4
    assert [numbers(loader)[1] for loader in loaders] == [[], [], [], [8]]


def test_no_samples_no_batches():
    assert numbers(Loader(CountingSource(), range(4, 4), 4)) == []


def test_prefetch_is_bounded():
    source = CountingSource()
    batches = iter(Loader(source, range(100), 2, prefetch=3))
    next(batches)
    time.sleep(0.05)
    # The batch handed out and three ahead.
    assert len(source.asked) == 4
    batches.close()


@pytest.mark.parametrize("prefetch", [0, 1, 4])
def test_an_exception_is_raised_at_its_own_batch(prefetch):
    batches = iter(Loader(CountingSource(fails_at=5), range(20), 2, prefetch=prefetch))
    assert [next(batches).tokens[0, 0].item() for _ in range(2)] == [0, 2]
    with pytest.raises(InputError, match="sample 5 is damaged"):
        next(batches)
    assert loader_threads() == []


def test_closing_early_stops_the_threads():
    batches = iter(Loader(CountingSource(), range(1000), 2, prefetch=4))
    next(batches)
    assert loader_threads()
    batches.close()
    assert loader_threads() == []


def test_a_loader_can_be_read_twice():
    loader = Loader(CountingSource(), range(10), 2)
    assert numbers(loader) == numbers(loader)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"indices": range(0, 10, 2)}, "step 1"),
        ({"indices": range(-1, 10)}, "begin at 0"),
        ({"batch_size": 0}, "global batch of 0"),
        ({"batch_size": 3, "world_size": 2}, "global batch of 3 rows over 2 ranks"),
        ({"rank": 2, "world_size": 2}, "rank is 2 of 2"),
        ({"prefetch": -1}, "prefetch is -1"),
    ],
)
def test_impossible_arguments_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        Loader(CountingSource(), **{"indices": range(8), "batch_size": 4, **arguments})
