"""Gradients of one global batch, micro-batch by micro-batch."""

import torch

from megasbp.data.batch import Batch
from megasbp.model.transformer import Transformer
from megasbp.parallel.parallelize import begin_micro_batch
from megasbp.parallel.pipeline import Pipeline


def accumulate_gradients(
    model: Transformer | Pipeline, batch: Batch, micro_batch: int, valid_tokens: int, device: torch.device
) -> torch.Tensor:
    """Adds the gradient of the summed loss / valid_tokens over this rank's rows.

    The divisor is the global batch's, known before the first backward pass: a token weighs the same in
    whichever micro-batch and on whichever rank it lies, however uneven their numbers of labels are.

    Args:
        batch: this rank's rows, on the host.
        micro_batch: rows of a forward pass.
        valid_tokens: tokens with a label in the global batch, over all ranks.

    Returns:
        The summed loss of this rank's rows in nats, float64 scalar on the device; 0 on ranks without a
        pipeline's last stage.
    """
    if isinstance(model, Pipeline):
        return model.accumulate_gradients(batch, micro_batch, valid_tokens)
    rows = batch.tokens.shape[0]
    count = -(-rows // micro_batch)
    nats = torch.zeros((), dtype=torch.float64, device=device)
    for index in range(count):
        rows_of_part = batch.rows(index * micro_batch, (index + 1) * micro_batch)
        # Without segments other backends can attend: faster ones on a GPU.
        whole = device.type == "cuda" and rows_of_part.has_whole_rows
        part = rows_of_part.to(device)
        begin_micro_batch(model, index, count)
        loss = model(part.tokens, part.positions, None if whole else part.segments, part.labels)
        (loss / valid_tokens).backward()
        nats += loss.detach()
    return nats
