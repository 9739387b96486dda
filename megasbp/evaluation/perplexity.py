"""Held-out loss of each item of a packed source: a document's, or that of a pair's target."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from megasbp.data.sources import SampleSource
from megasbp.model.transformer import Transformer
from megasbp.parallel.runtime import Runtime

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


@torch.inference_mode()
def document_losses(
    model: Transformer, source: PackedSource, items: int, batch_size: int, runtime: Runtime | None = None
) -> DocumentLosses:
    """Reads every row of a packed source once.

    An item in several segments (a document longer than a row) gets the sum over them, in the order of the
    rows. Token losses are float32 and summed in float64. Equal calls give equal bytes at one thread count, on
    any number of ranks; another batch size may change the last bits of a token's loss.

    Args:
        model: whole, on the device to compute on.
        source: its epoch 0 is read; row r must be sample r, so a `PairSource` must have no seed.
        items: number of items; every `row_items` value lies below it.
        batch_size: rows per forward pass.
        runtime: the ranks take turns with the batches, whatever their layout; all of them call it, with equal
            models, and all get all losses. None for this process alone.

    Raises:
        ValueError: batch_size < 1, or an item that is not below `items`.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}, must be at least 1")
    owners = [np.asarray(source.row_items(row)) for row in range(source.samples_per_epoch)]
    for row, held in enumerate(owners):
        if held.size and not 0 <= held.min() <= held.max() < items:
            raise ValueError(f"row {row} holds item {held.max()}, items must lie in 0..{items - 1}")
    bounds = np.concatenate([[0], np.cumsum([len(held) for held in owners])]).astype(np.int64)
    # By segment, in the order of the rows: what one rank computes is zero on all others.
    nats, tokens = np.zeros(bounds[-1]), np.zeros(bounds[-1], dtype=np.int64)
    model.eval()
    for number, start in enumerate(range(0, len(owners), batch_size)):
        if runtime is not None and number % runtime.world_size != runtime.rank:
            continue
        rows = np.arange(start, min(start + batch_size, len(owners)), dtype=np.int64)
        found = _segment_losses(model, source, rows)
        for row, (row_nats, row_tokens) in zip(rows.tolist(), found, strict=True):
            nats[bounds[row] : bounds[row + 1]] = row_nats
            tokens[bounds[row] : bounds[row + 1]] = row_tokens
    if runtime is not None:
        runtime.sum(torch.from_numpy(nats))
        runtime.sum(torch.from_numpy(tokens))
    result = DocumentLosses(np.zeros(items), np.zeros(items, dtype=np.int64))
    segments = np.concatenate([np.zeros(0, dtype=np.int64), *owners])
    np.add.at(result.nats, segments, nats)
    np.add.at(result.tokens, segments, tokens)
    return result


def _segment_losses(
    model: Transformer, source: PackedSource, rows: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Of each row: float64 [segments] nats and int64 [segments] predicted tokens."""
    batch = source.batch(rows).to(next(model.parameters()).device)
    losses_BS = model(
        batch.tokens, batch.positions, segments=batch.segments, labels=batch.labels, reduction="none"
    )
    segments_BS, valid_BS = batch.segments.cpu().numpy(), (batch.labels != _MASKED).cpu().numpy()
    wide_BS = losses_BS.double().cpu().numpy()
    for position, row in enumerate(rows.tolist()):
        valid, count = valid_BS[position], len(source.row_items(row))
        segments, losses = segments_BS[position][valid], wide_BS[position][valid]
        # bincount adds in the order of the tokens, so the sum does not depend on threads.
        yield (
            np.bincount(segments, weights=losses, minlength=count),
            np.bincount(segments, minlength=count),
        )
