"""The model that writes: its type, and its weights held in it."""

from pathlib import Path
from typing import Literal

import torch

from megasbp.model.batch_invariant import make_batch_invariant
from megasbp.model.layers import Embedding, Linear
from megasbp.model.transformer import Transformer
from megasbp.parallel.runtime import computes_bfloat16
from megasbp.training.checkpoint import load_model

Precision = Literal["auto", "bf16", "fp32"]


def load_generator(
    checkpoint: Path, device: torch.device | str, precision: Precision, batch_invariant: bool = False
) -> Transformer:
    """A checkpoint's model for the engine, in eval mode.

    Args:
        precision: "auto" is bf16 on a GPU that multiplies it, and fp32 elsewhere.
        batch_invariant: see `batch_invariant.make_batch_invariant`.

    Raises:
        InputError: the checkpoint is missing, partial or damaged.
    """
    model = load_model(checkpoint, device)
    if precision == "auto":
        precision = "bf16" if torch.device(device).type == "cuda" and computes_bfloat16(device) else "fp32"
    if precision == "bf16":
        model.compute_dtype = torch.bfloat16
        narrow_weights(model, torch.bfloat16)
    if batch_invariant:
        make_batch_invariant(model)
    return model


def narrow_weights(model: Transformer, dtype: torch.dtype) -> None:
    """Holds matrices and tables in the type that they are cast to at each step: half the memory to read, and
    no bit of a result changes."""
    for module in model.modules():
        if isinstance(module, Linear | Embedding):
            module.weight.data = module.weight.data.to(dtype)
