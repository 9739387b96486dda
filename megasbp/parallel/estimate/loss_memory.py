"""What the loss holds at its fullest: as `linear_cross_entropy` and its part for the tensor axis run."""

from megasbp.kernels.linear_cross_entropy import chunk_tokens
from megasbp.parallel.estimate.activations import Kernels
from megasbp.parallel.estimate.sizes import Sizes

_FP32 = 4


def loss_working(sizes: Sizes, kernels: Kernels) -> int:
    """Bytes beside activations and parameters; every token is taken to have a label."""
    model, element = sizes.model, sizes.element
    rows = model.vocabulary_size // sizes.tensor
    table = rows * model.width
    chunk = min(sizes.tokens, chunk_tokens(rows, kernels.logits)) * rows
    several = sizes.tokens * rows > chunk
    # States and their gradient; the gradient of the table, in fp32, and a chunk's part of it.
    held = 2 * sizes.tokens * model.width * element + table * _FP32
    if element < _FP32:
        # The table's values in fp32; one process also casts it.
        held += table * (_FP32 + (element if sizes.ranks == 1 else 0))
    cast = element if element < _FP32 else 0
    if sizes.tensor > 1:
        # Logits become their gradient in place; those of the chunk before live until the next are there.
        numbers = _FP32 + cast + (_FP32 if several else 0)
    else:
        # Logits and log-probabilities, which become the gradient; the cast one of the chunk before.
        numbers = 2 * _FP32 + cast + (element if several else 0)
    return held + max(chunk * numbers, chunk * (_FP32 + element) + table * element)
