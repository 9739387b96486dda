"""What the forward pass of a micro-batch keeps for the backward pass.

Counted per token in elements of the compute type and in bytes of fp32, for each of the modes of
`checkpoint_activations`. A rank of the tensor axis holds its part of the heads and of the inner width, and
between the blocks its part of the tokens; what a gather gives its products, it holds whole.
"""

from megasbp.parallel.estimate.parameters import block_parameters
from megasbp.parallel.estimate.sizes import Sizes

_FP32 = 4


def block_kept(sizes: Sizes) -> int:
    """Bytes of one block of one micro-batch."""
    if sizes.checkpointing == "full":
        return _input(sizes)
    if sizes.checkpointing == "none":
        return _everything(sizes)
    width, inner = sizes.model.width, sizes.model.feed_forward // sizes.tensor
    queries, keys = _queries(sizes), _keys(sizes)
    # Products of four projections and of three, and attention's result.
    products = (queries + 2 * keys + width) + (2 * inner + width) + queries
    return _input(sizes) + sizes.tokens * (products * sizes.element + _log_sums(sizes))


def computed_again(sizes: Sizes) -> int:
    """Bytes that a block's backward pass adds first, where activations are checkpointed."""
    everything = _everything(sizes)
    if sizes.checkpointing == "none":
        return 0
    if sizes.checkpointing == "full":
        return everything - _input(sizes)
    queries, keys, inner = _queries(sizes), _keys(sizes), sizes.model.feed_forward // sizes.tensor
    # Of what was kept, these are used as they are.
    products = keys + 2 * inner + queries + (queries + keys if sizes.model.qk_norm else 0)
    return everything - _input(sizes) - sizes.tokens * (products * sizes.element + _log_sums(sizes))


def ends_kept(sizes: Sizes) -> int:
    """Bytes outside the blocks of one micro-batch: its batch, rotations, bounds, and what the loss reads."""
    model, tokens = sizes.model, sizes.tokens
    # Tokens, labels, positions and segments, int32; the labels again in int64.
    kept = tokens * (4 * 4 + 8) + tokens * 2 * model.head_dim * _FP32
    # Four bounds a token of whole rows, int32.
    kept += sizes.micro_batch * sizes.sequence_length * 4 * 4
    if sizes.last:
        kept += _input(sizes) + tokens // sizes.tensor * _FP32
    return kept


def handed_kept(sizes: Sizes, computed: int, in_flight: int) -> int:
    """Bytes of states between stages that torch.distributed.pipelining holds, beside those in `block_kept`.

    Each stage has a buffer for every micro-batch of a step, for the states that it receives and for the
    gradients, and keeps its results until their backward pass. Ranks of several stages wait at the end of a
    step only for what they have sent, which is held until then.

    Args:
        computed: backward passes, of all micro-batches through all stages of the rank, that are over.
        in_flight: forward passes whose backward pass is not over; all others are.
    """
    parts, count = sizes.parts, len(sizes.parts)
    receiving, returned = (sum(not part.first for part in parts), sum(not part.last for part in parts))
    # What a pass in flight has received is the input of its first block.
    held = sizes.micro_batches * (receiving + returned) + in_flight * (returned - receiving) // count
    if count > 1:
        sends, receives = (sum(part.sends for part in parts), sum(part.receives for part in parts))
        held += computed * (sends + receives) // count
    return held * _input(sizes)


def _everything(sizes: Sizes) -> int:
    """Bytes of a block without checkpointing."""
    model, tokens = sizes.model, sizes.tokens
    queries, keys, inner = _queries(sizes), _keys(sizes), model.feed_forward // sizes.tensor
    # Behind the norms; rotated queries and attention's result; gate, up and their product.
    elements = 2 * model.width + 2 * queries + 3 * inner
    # Rotated keys and values, of whole rows.
    elements += 2 * keys * sizes.context
    scales = 2 / sizes.tensor
    if model.qk_norm:
        # Norm and rotation are one kernel, which takes the norms again.
        elements += queries + keys
    kept = 2 * _input(sizes) + tokens * elements * sizes.element
    kept += round(tokens * scales * _FP32) + tokens * _log_sums(sizes)
    if sizes.ranks == 1 and sizes.element < _FP32:
        # One process casts its fp32 weights; FSDP2 gathers them in the compute type.
        matrices = (p for p in block_parameters(model) if p.tensor_dim is not None)
        kept += sizes.element * sum(parameter.unsharded(1) for parameter in matrices)
    return kept


def _input(sizes: Sizes) -> int:
    """Bytes of the states between two blocks."""
    return sizes.tokens // sizes.tensor * sizes.model.width * sizes.element


def _log_sums(sizes: Sizes) -> int:
    """Bytes a token of the logarithms of attention's sums."""
    return sizes.model.heads // sizes.tensor * _FP32


def _queries(sizes: Sizes) -> int:
    return sizes.model.heads * sizes.model.head_dim // sizes.tensor


def _keys(sizes: Sizes) -> int:
    return sizes.model.kv_heads * sizes.model.head_dim // sizes.tensor
