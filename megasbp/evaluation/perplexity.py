"""Held-out loss of each item of a packed source: a document's, or that of a pair's target."""

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from megasbp.data.sources import SampleSource
from megasbp.model.transformer import Transformer

_MASKED = -100


class PackedSource(SampleSource, Protocol):
    """A source whose rows hold whole items, such as `PackedDocuments` and `PairSource`."""

    def row_items(self, row: int, /) -> np.ndarray:
        """The item of each segment of a row, in segment order."""
        ...


@dataclass(frozen=True)
class DocumentLosses:
    """Losses by item; items that the source does not hold are zeros.

    Attributes:
        nats: float64 [items], sum of -log p over the item's predicted tokens.
        tokens: int64 [items], how many tokens were predicted.
    """

    nats: np.ndarray
    tokens: np.ndarray

    @property
    def nats_per_token(self) -> float:
        """Mean over all predicted tokens; nan without any."""
        tokens = int(self.tokens.sum())
        return math.fsum(self.nats) / tokens if tokens else math.nan


@torch.inference_mode()
def document_losses(model: Transformer, source: PackedSource, items: int, batch_size: int) -> DocumentLosses:
    """Reads every row of a packed source once, in order.

    An item in several segments (a document longer than a row) gets the sum over them. Token losses are
    float32 and summed in float64. Equal calls give equal bytes at one thread count; another batch size may
    change the last bits of a token's loss.

    Args:
        model: whole, on the device to compute on.
        source: its epoch 0 is read; row r must be sample r, so a `PairSource` must have no seed.
        items: number of items; every `row_items` value lies below it.
        batch_size: rows per forward pass.

    Raises:
        ValueError: batch_size < 1, or an item that is not below `items`.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}, must be at least 1")
    nats = np.zeros(items, dtype=np.float64)
    tokens = np.zeros(items, dtype=np.int64)
    model.eval()
    device = next(model.parameters()).device
    for start in range(0, source.samples_per_epoch, batch_size):
        rows = np.arange(start, min(start + batch_size, source.samples_per_epoch), dtype=np.int64)
        batch = source.batch(rows).to(device)
        losses_BS = model(
            batch.tokens, batch.positions, segments=batch.segments, labels=batch.labels, reduction="none"
        )
        segments_BS, valid_BS = batch.segments.cpu().numpy(), (batch.labels != _MASKED).cpu().numpy()
        wide_BS = losses_BS.double().cpu().numpy()
        for position, row in enumerate(rows.tolist()):
            owners = np.asarray(source.row_items(row))
            if owners.size and not 0 <= owners.min() <= owners.max() < items:
                raise ValueError(f"row {row} holds item {owners.max()}, items must lie in 0..{items - 1}")
            valid = valid_BS[position]
            segments, losses = segments_BS[position][valid], wide_BS[position][valid]
            # bincount adds in the order of the tokens, so the sum does not depend on threads.
            np.add.at(nats, owners, np.bincount(segments, weights=losses, minlength=len(owners)))
            np.add.at(tokens, owners, np.bincount(segments, minlength=len(owners)))
    return DocumentLosses(nats, tokens)


def nats_per_byte(losses: DocumentLosses, document_bytes: np.ndarray) -> float:
    """Total nats over total UTF-8 bytes: comparable between tokenizers.

    Args:
        losses: of documents; the nats include those of the end token, which has no bytes.
        document_bytes: integers [items], UTF-8 bytes of each document; documents without a loss do not count.

    Raises:
        ValueError: the lengths differ, or no document has both a loss and bytes.
    """
    if len(document_bytes) != len(losses.nats):
        raise ValueError(f"document_bytes has {len(document_bytes)} entries, losses {len(losses.nats)}")
    total = int(np.asarray(document_bytes, dtype=np.int64)[losses.tokens > 0].sum())
    if total == 0:
        raise ValueError("no document with a loss has any bytes")
    return math.fsum(losses.nats) / total
