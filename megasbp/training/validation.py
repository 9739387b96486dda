"""Held-out loss during training."""

import numpy as np
import torch

from megasbp.data.batch import MASKED, Batch
from megasbp.data.sources import SampleSource
from megasbp.errors import InputError
from megasbp.model.transformer import Transformer
from megasbp.parallel.parallelize import release_parameters
from megasbp.parallel.pipeline import Pipeline
from megasbp.parallel.runtime import Runtime


@torch.no_grad()
def validation_loss(
    model: Transformer | Pipeline, source: SampleSource, batch_size: int, runtime: Runtime
) -> float:
    """Nats per token with a label, over one epoch of `source`; all ranks call it and get the same value.

    It is not finite where the training has diverged.

    Args:
        batch_size: rows of a forward pass on one rank.

    Raises:
        InputError: no token of the source has a label.
    """
    model.eval()
    totals = torch.zeros(2, dtype=torch.float64, device=runtime.device)
    samples = source.samples_per_epoch
    for first in range(0, samples, batch_size * runtime.data_ranks):
        start = min(first + batch_size * runtime.data_rank, samples)
        batch = _rows(source, start, min(start + batch_size, samples))
        valid = batch.valid_tokens
        batch = batch.to(runtime.device)
        totals[0] += model(batch.tokens, batch.positions, batch.segments, batch.labels)
        totals[1] += valid
    release_parameters(model)
    model.train()
    tokens = runtime.sum_over_data(totals[1]).item()
    # Ranks that share each matrix have the same loss, those without a pipeline's last stage none.
    nats = runtime.sum(totals[0] / runtime.tensor_ranks).item()
    if tokens == 0:
        raise InputError("the validation source has no token with a label; give it more documents")
    return nats / tokens


def _rows(source: SampleSource, start: int, stop: int) -> Batch:
    if start < stop:
        return source.batch(np.arange(start, stop, dtype=np.int64))
    # A rank without rows of its own still takes part in gathering the parameters, and adds nothing.
    batch = source.batch(np.zeros(1, dtype=np.int64))
    return Batch(batch.tokens, torch.full_like(batch.labels, MASKED), batch.positions, batch.segments)
