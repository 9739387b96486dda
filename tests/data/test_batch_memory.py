"""Batches reuse memory, and never that of a batch somebody still has."""

import numpy as np
import pytest
from data_reference import batch_rows, random_documents, write_dataset

from megasbp.data.windows import WindowSource
from megasbp.errors import InputError


@pytest.fixture
def source(tmp_path):
    return WindowSource(write_dataset(tmp_path / "x", random_documents([4000])), 64, 0, "x")


def test_a_batch_let_go_gives_its_memory_to_the_next(source):
    first = source.batch(np.arange(9))
    address = first.tokens.data_ptr()
    del first
    assert source.batch(np.arange(9)).tokens.data_ptr() == address


def test_batches_that_are_kept_stay_as_they_were(source):
    samples = [np.arange(7 * i, 7 * i + 7) for i in range(20)]
    kept = [source.batch(sample) for sample in samples]
    assert len({batch.tokens.data_ptr() for batch in kept}) == len(kept)
    assert [batch_rows(batch) for batch in kept] == [batch_rows(source.batch(sample)) for sample in samples]


@pytest.mark.parametrize("part", ["tokens", "labels", "positions", "segments"])
def test_one_part_of_a_batch_keeps_all_of_its_memory(source, part):
    batch = source.batch(np.arange(5))
    kept = getattr(batch, part)[2]
    before = kept.tolist()
    del batch
    others = [source.batch(np.arange(i, i + 5)) for i in range(6)]
    assert kept.tolist() == before
    del others


def test_batches_are_aligned_and_writable_like_any_array(source):
    batch = source.batch(np.arange(5))
    batch.tokens[0, 0] = 7
    assert batch.tokens[0, 0] == 7
    assert batch.tokens.is_contiguous()


def test_rows_beyond_any_memory_are_refused(tmp_path):
    import megasbp._C as core

    dataset = write_dataset(tmp_path / "x", [[4, 5]]).native
    with pytest.raises(ValueError, match="too many"):
        core.window_batch(dataset, np.zeros(4, dtype=np.int64), 2**60)
    with pytest.raises(InputError):
        WindowSource(write_dataset(tmp_path / "y", [[4, 5]]), 2**60, 0, "y")
