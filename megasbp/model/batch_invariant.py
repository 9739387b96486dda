"""A model whose products give a row the same bits however many rows there are."""

from megasbp.kernels.invariant_linear import invariant_linear, invariant_wide_product
from megasbp.model.layers import Linear
from megasbp.model.transformer import Transformer


def make_batch_invariant(model: Transformer) -> None:
    """Replaces the products of a model that is to write; it has no gradients from then on.

    All its other kernels work on a row alone. Of attention that is so for a cache in slots on a CPU, and for
    one in pages that reads a query at a time.
    """
    for module in model.modules():
        if isinstance(module, Linear):
            module.product = invariant_linear
    model.wide_product = invariant_wide_product


def is_batch_invariant(model: Transformer) -> bool:
    """Whether `make_batch_invariant` was applied."""
    return model.wide_product is invariant_wide_product
