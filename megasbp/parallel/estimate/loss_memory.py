"""What the loss holds at its fullest: as `linear_cross_entropy` and its part for the tensor axis run."""

from megasbp.kernels.linear_cross_entropy import chunk_tokens
from megasbp.parallel.estimate.sizes import Sizes

_FP32 = 4


def loss_working(sizes: Sizes, logits: int) -> int:
    """Bytes beside activations and parameters; every token is taken to have a label.

    Args:
        logits: held at a time, of many tokens.
    """
    model, element = sizes.model, sizes.element
    rows = model.vocabulary_size // sizes.tensor
    table = rows * model.width
    chunk = min(sizes.tokens, chunk_tokens(rows, logits)) * rows
    # States and their gradient; the gradient of the table, in fp32.
    held = 2 * sizes.tokens * model.width * element + table * _FP32
    if element < _FP32 and sizes.ranks == 1:
        # One process casts its fp32 weights; FSDP2 gathers them in the compute type.
        held += table * element
    # Logits and their gradient; in the end that of a table which was gathered in a narrow type.
    cast = table * element if element < _FP32 and sizes.ranks > 1 else 0
    return held + max(chunk * (_FP32 + element), cast)
