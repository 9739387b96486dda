"""Which sizes an engine may have."""

import torch

from megasbp.errors import InputError
from megasbp.model.transformer import Transformer
from megasbp.parallel.runtime import computes_bfloat16


def require_sizes(
    model: Transformer, *, slots: int, capacity: int, prefill_slots: int, prefill_chunk: int
) -> None:
    """Refuses what cannot be; the arguments are those of `Engine`.

    Raises:
        InputError: the sizes do not agree, or the model's device would make a document's bytes depend on its
            neighbours; the message names the allowed values.
    """
    if not 1 <= prefill_slots <= slots:
        raise InputError(f"prefill_slots is {prefill_slots}; allowed: 1 to slots ({slots})")
    if prefill_chunk < 1 or capacity % prefill_chunk:
        raise InputError(
            f"prefill_chunk is {prefill_chunk}; allowed: divisors of the context {capacity}, "
            f"such as {_nearest_divisor(capacity, prefill_chunk)}"
        )
    if capacity > model.config.maximum_positions:
        raise InputError(
            f"context is {capacity}; allowed: up to model.maximum_positions "
            f"({model.config.maximum_positions})"
        )
    device = next(model.parameters()).device
    if model.compute_dtype == torch.bfloat16 and not computes_bfloat16(device):
        raise InputError(
            f"{device} emulates bfloat16, so a document's bytes would depend on its neighbours; "
            "synthesise in float32, or on a device that multiplies bfloat16"
        )


def _nearest_divisor(number: int, value: int) -> int:
    return min((d for d in range(1, number + 1) if number % d == 0), key=lambda d: (abs(d - value), d))
