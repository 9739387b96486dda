"""What a rank's device holds in a step, at the moments that may be its fullest.

Tensors only. Not counted: what the allocator reserves beyond them, the buffers of the communication library
and the device's own context, some GB together; and of the zero-bubble schedules the gradients between the
passes for inputs and for weights (7 to 16% of all, in a small model on two ranks).
"""

from dataclasses import dataclass
from itertools import product

from megasbp.kernels.linear_cross_entropy import DEVICE_LOGITS
from megasbp.parallel.estimate.activations import block_kept, computed_again, ends_kept, handed_kept
from megasbp.parallel.estimate.loss_memory import loss_working
from megasbp.parallel.estimate.parameters import block_unit, rank_parameters, root_units
from megasbp.parallel.estimate.sizes import Sizes

GIB = 2**30
_FP32 = 4
# FSDP2 frees the input of a reduce-scatter when it starts the one after the next.
_SUMS_ON_THEIR_WAY = 2
# Of a feed-forward layer's product, and of what it is made of: gate and up.
_ACTIVATION_GRADIENTS = 3


@dataclass(frozen=True)
class Memory:
    """Bytes at one moment of a step.

    Attributes:
        weights: this rank's, fp32.
        optimizer: two moments, fp32.
        gathered: parameters of other ranks, in the compute type.
        gradients: this rank's sums in fp32, and those that are not yet reduced.
        activations: kept for the backward pass.
        working: what a kernel holds while it runs.
        buffers: of collectives on their way.
    """

    moment: str
    weights: int
    optimizer: int
    gathered: int
    gradients: int
    activations: int
    working: int
    buffers: int

    @property
    def total(self) -> int:
        """Bytes together."""
        parts = (self.weights, self.optimizer, self.gathered, self.gradients)
        return sum(parts) + self.activations + self.working + self.buffers


def peak_memory(sizes: Sizes, logits: int = DEVICE_LOGITS) -> Memory:
    """The fullest of `moments`."""
    return max(moments(sizes, logits), key=lambda memory: memory.total)


def moments(sizes: Sizes, logits: int = DEVICE_LOGITS) -> list[Memory]:
    """The loss; each block's backward pass at its feed-forward layer, and its end; the end of all.

    Args:
        logits: that the loss holds at a time, of many tokens.
    """
    block, roots = block_unit(sizes), sum(root.unsharded for root in root_units(sizes))
    element, alone, several = sizes.element, sizes.ranks == 1, sizes.accumulates
    # Of the stage that runs; a rank may hold others.
    layers = max(part.layers for part in sizes.parts)
    held = rank_parameters(sizes)
    # Between micro-batches gradients stay as they are, in fp32; one process has no others.
    unreduced = _FP32 * (sizes.layers * block.unsharded + roots) if several else 0
    gradient = _FP32 if alone else element
    table = sizes.model.vocabulary_size // sizes.tensor * sizes.model.width * sizes.last
    parameters = 0 if alone else element
    gathered = parameters * (roots + (sizes.layers * block.unsharded if several else 0))
    running = 0 if several else parameters * block.unsharded
    reducing = 0 if alone else _FP32 * block.unsharded
    kept, ends = block_kept(sizes), ends_kept(sizes)
    passes, in_flight = len(sizes.parts) * sizes.micro_batches, sizes.in_flight
    piped = sizes.pipeline > 1
    # The last time that so many passes are in flight.
    handed = handed_kept(sizes, passes - in_flight, in_flight) if piped else 0
    waiting = [(in_flight - 1) * (layers * kept + ends) + handed]
    # Where all are, the first backward pass finds no gradients, and the second one pass fewer.
    fresh = piped and in_flight == passes
    if fresh and passes > 1:
        waiting.append(waiting[0] - layers * kept - ends)
    inner = sizes.model.feed_forward // sizes.tensor
    states = sizes.tokens * sizes.model.width * element

    def memory(moment: str, **parts: int) -> Memory:
        return Memory(moment, weights=_FP32 * held, optimizer=2 * _FP32 * held, **parts)

    found = [
        memory(
            "loss",
            gathered=gathered,
            gradients=0 if fresh else unreduced,
            activations=waiting[0] + layers * kept + ends,
            working=loss_working(sizes, logits) if sizes.last else 0,
            buffers=0,
        )
    ]
    for number, done in product(range(len(waiting)), range(layers)):
        reduced = 0 if alone and several else _FP32 * done * block.shard
        left = _FP32 * done * block.unsharded if fresh and number == 0 else unreduced + reduced
        before = left + element * table
        # The next block's parameters arrive meanwhile, and sums of up to two blocks are on their way.
        buffers = running + min(done, _SUMS_ON_THEIR_WAY) * reducing
        activations = waiting[number] + (layers - done) * kept + ends
        found += [
            memory(
                f"backward pass of block {layers - done}",
                gathered=gathered + running,
                gradients=before + (0 if several else gradient * sizes.model.width * inner),
                # The product that the last layer read is no longer needed.
                activations=activations + computed_again(sizes) - sizes.tokens * inner * element,
                working=sizes.tokens * inner * _ACTIVATION_GRADIENTS * element + states,
                buffers=buffers,
            ),
            memory(
                f"gradients of block {layers - done}",
                gathered=gathered,
                gradients=before + (0 if several else gradient * block.unsharded),
                activations=activations - kept,
                working=states,
                buffers=buffers + reducing,
            ),
        ]
    return [
        *found,
        memory(
            "gradients outside the blocks",
            gathered=0,
            gradients=_FP32 * held + (0 if alone else (_FP32 if several else element) * roots),
            activations=handed_kept(sizes, passes, 0) if piped else waiting[0],
            working=0,
            buffers=0 if alone else _FP32 * roots,
        ),
    ]
