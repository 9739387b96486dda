"""NVIDIA DALI's pipeline gives the loader's batches."""

import numpy as np
import pytest
import torch
from data_reference import batch_rows, random_documents, write_dataset

from megasbp.data.batch import Batch
from megasbp.data.dali import DaliLoader
from megasbp.data.documents import PackedDocuments
from megasbp.data.loader import Loader
from megasbp.data.windows import WindowSource
from megasbp.errors import InputError

pytest.importorskip("nvidia.dali", reason="needs NVIDIA DALI: pip install nvidia-dali-cuda130")
pytestmark = pytest.mark.slow

DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
    ),
]


@pytest.fixture
def dataset(tmp_path):
    return write_dataset(tmp_path / "x", random_documents([40, 3, 99, 0, 17, 5]))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("depth", [1, 2, 5])
@pytest.mark.parametrize("ranks", [1, 3])
def test_batches_are_the_loaders(dataset, device, depth, ranks):
    for source in (WindowSource(dataset, 16, 0, "x"), PackedDocuments(dataset, 16)):
        for rank in range(ranks):
            # 20 samples in batches of 6: the last batch has 2 rows, so a rank of 3 has none.
            loader = Loader(source, range(20), 6, rank, ranks)
            through = list(DaliLoader(loader, device, depth))
            assert [batch.tokens.device.type for batch in through] == [device] * len(loader)
            assert [batch_rows(batch.to("cpu")) for batch in through] == [batch_rows(b) for b in loader]


def test_batches_stay_as_they_were_while_more_are_drawn(dataset):
    loader = Loader(WindowSource(dataset, 16, 0, "x"), range(400), 4)
    kept = list(DaliLoader(loader))
    assert [batch_rows(batch) for batch in kept] == [batch_rows(batch) for batch in loader]


def test_it_can_be_read_twice_and_left_early(dataset):
    through = DaliLoader(Loader(WindowSource(dataset, 16, 0, "x"), range(40), 4))
    batches = iter(through)
    first = batch_rows(next(batches))
    batches.close()
    assert batch_rows(next(iter(through))) == first
    assert len(list(through)) == len(through) == 10


class FailingSource:
    sequence_length = 2
    samples_per_epoch = 10
    fingerprint = "failing"

    def batch(self, indices):
        if 5 in indices:
            raise InputError("sample 5 is damaged")
        tokens = torch.from_numpy(np.repeat(indices[:, None], 2, axis=1).astype(np.int32))
        return Batch(tokens, tokens, tokens, tokens)


def test_an_exception_is_raised_at_its_own_batch():
    batches = iter(DaliLoader(Loader(FailingSource(), range(20), 2)))
    assert [next(batches).tokens[0, 0].item() for _ in range(2)] == [0, 2]
    with pytest.raises(InputError, match="sample 5 is damaged"):
        next(batches)


def test_a_depth_of_none_is_refused(dataset):
    with pytest.raises(InputError, match="depth is 0"):
        DaliLoader(Loader(WindowSource(dataset, 16, 0, "x"), range(4), 4), depth=0)
