"""Losses of items: each predicted token is counted once and belongs to the right item."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from megasbp.data.batch import Batch
from megasbp.data.documents import PackedDocuments
from megasbp.data.indexed_dataset import IndexedDataset, IndexedDatasetWriter
from megasbp.data.pairs import PairSource
from megasbp.evaluation.perplexity import DocumentLosses, document_losses

BOS, EOS, SEP = 0, 1, 2


class TableModel(torch.nn.Module):
    """A token t at position p costs t + p / 1000 nats where it is to be predicted."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))  # says on which device the model is

    def forward(
        self,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        segments: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        reduction: str = "sum",
    ) -> torch.Tensor:
        assert labels is not None and segments is not None and reduction == "none"
        losses = labels.float() + positions.float() / 1000
        return torch.where(labels == -100, torch.zeros_like(losses), losses)


class Rows:
    """Two rows of 5 tokens: items 2 and 0, then item 2 again and padding."""

    sequence_length, samples_per_epoch, fingerprint = 5, 2, "rows"
    arrays = (
        np.array([[0, 7, 8, 0, 9], [0, 4, 5, 1, 1]]),
        np.array([[7, 8, -100, 9, -100], [4, 5, -100, -100, -100]]),
        np.array([[0, 1, 2, 0, 1], [0, 1, 2, 0, 0]]),
        np.array([[0, 0, 0, 1, 1], [0, 0, 0, -1, -1]]),
    )

    def batch(self, indices: np.ndarray) -> Batch:
        return Batch.from_array(np.stack([array[indices] for array in self.arrays]))

    def row_items(self, row: int) -> np.ndarray:
        return [np.array([2, 0]), np.array([2])][row]


def losses(source: Any, items: int, batch_size: int = 4) -> DocumentLosses:
    return document_losses(TableModel(), source, items, batch_size)  # type: ignore[arg-type]


def dataset(prefix: Path, documents: list[list[int]]) -> IndexedDataset:
    with IndexedDatasetWriter(
        prefix, np.uint16, metadata={"tokenizer": "t", "bos": BOS, "eos": EOS}
    ) as writer:
        for document in documents:
            writer.add_document(np.array([BOS, *document, EOS], dtype=np.uint16))
    return IndexedDataset(prefix)


@pytest.mark.parametrize("batch_size", [1, 2, 7])
def test_losses_of_a_source_computed_by_hand(batch_size: int) -> None:
    found = losses(Rows(), 4, batch_size)
    # float32 values of the model, added in float64.
    np.testing.assert_allclose(found.nats, [9, 0, 7 + 8.001 + 4 + 5.001, 0], rtol=1e-6)
    assert found.tokens.tolist() == [1, 0, 4, 0]


def test_an_item_beyond_the_number_of_items_is_refused() -> None:
    with pytest.raises(ValueError, match=r"row 0 holds item 2, items must lie in 0\.\.1"):
        losses(Rows(), 2)


def test_a_batch_of_no_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="batch_size is 0"):
        losses(Rows(), 4, 0)


def test_packed_documents_predict_every_token_after_bos_once(tmp_path: Path) -> None:
    documents = [[10, 11, 12], [20] * 30, [30], [40, 41]]
    source = PackedDocuments(dataset(tmp_path / "d", documents), 8, np.array([0, 1, 3]))
    found = losses(source, 4)
    assert found.tokens.tolist() == [4, 31, 0, 3]
    # Without the thousandths of the positions; the end token costs EOS = 1.
    assert np.floor(found.nats).tolist() == [34, 601, 0, 82]


def test_pairs_lose_on_the_target_and_its_end_only(tmp_path: Path) -> None:
    seeds, targets = (
        dataset(tmp_path / "s", [[90] * 3, [80] * 5]),
        dataset(tmp_path / "t", [[10, 11], [20, 21, 22]]),
    )
    source = PairSource(seeds, targets, np.array([1, 0, 1]), np.array([0, 1, 1]), 32, SEP)
    found = losses(source, 3)
    assert found.tokens.tolist() == [3, 4, 4]
    # bos, five of the seed, sep at 6: the target's tokens and eos are predicted from positions 6, 7 and 8.
    assert found.nats[0] == pytest.approx(10.006 + 11.007 + EOS + 0.008, rel=1e-6)
    assert np.floor(found.nats).tolist() == [22, 64, 64]
