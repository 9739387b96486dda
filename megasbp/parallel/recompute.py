"""Activation checkpointing: a block's activations are computed again in its backward pass instead of kept.

Chen et al., "Training deep nets with sublinear memory cost", arXiv 1604.06174.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

from megasbp.model.transformer import Transformer
from megasbp.parallel.asynchronous import OPERATORS

Mode = Literal["none", "selective", "full"]

_ATEN = torch.ops.aten
# What costs most to compute for the memory that it takes.
_KEPT = [
    _ATEN.mm.default,
    _ATEN.addmm.default,
    _ATEN._scaled_dot_product_cudnn_attention.default,
    _ATEN._scaled_dot_product_efficient_attention.default,
    _ATEN._scaled_dot_product_flash_attention.default,
    torch.ops.megasbp.attention_forward.default,
    *OPERATORS,
]


def checkpoint_activations(model: Transformer, mode: Mode) -> None:
    """Has the blocks of a model compute their activations again, in place. Changes no bit of any gradient.

    Args:
        mode: "full" keeps a block's input only; "selective" also the matrix products and attention, so
            that norms, rotations and the like are computed again; "none" keeps all.
    """
    if mode == "none":
        return
    options: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}
    if mode == "selective":
        options["context_fn"] = partial(create_selective_checkpoint_contexts, _KEPT)
    for block in model.blocks.values():
        block.forward = _recomputed(block.forward, options)


def _recomputed(forward: Callable[..., torch.Tensor], options: dict[str, Any]) -> Callable[..., torch.Tensor]:
    # A function of its own, because torch.compile does not look into a `partial`.
    def recomputed(*arguments: Any) -> torch.Tensor:
        return checkpoint(forward, *arguments, **options)

    return recomputed
