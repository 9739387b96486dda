"""What a rank communicates in one optimiser step: forward and backward passes of all micro-batches.

Left out are a few numbers a step: counts of tokens, and loss and norm.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from megasbp.parallel.estimate.parameters import Parameter, block_unit, root_units
from megasbp.parallel.estimate.sizes import Sizes

Kind = Literal["all-gather", "reduce-scatter", "all-reduce", "point to point"]
Axis = Literal["pp", "dp_replicate", "dp_shard", "cp", "tp"]
_FP32 = 4


@dataclass(frozen=True)
class Collective:
    """Equal calls of one collective in a step.

    Attributes:
        ranks: of a group.
        calls: in a step.
        size: bytes of the whole tensor of each call: what a gather gives, a scatter takes.
    """

    axis: Axis
    kind: Kind
    ranks: int
    calls: int
    size: int

    @property
    def bytes(self) -> int:
        """Of all calls."""
        return self.calls * self.size

    @property
    def sent(self) -> float:
        """Bytes that a rank sends if the ranks form a ring, which is the least: Patarasuk and Yuan, 2009."""
        rounds = {"all-gather": 1, "reduce-scatter": 1, "all-reduce": 2}.get(self.kind)
        return self.bytes if rounds is None else rounds * self.bytes * (self.ranks - 1) / self.ranks


def collectives(sizes: Sizes) -> list[Collective]:
    """Of one rank in one step; none of an axis of one rank."""
    groups = (
        _stages(sizes),
        _parameters(sizes),
        _sequence(sizes),
        _keys_and_values(sizes),
        _vocabulary(sizes),
    )
    return [one for group in groups for one in group if one.ranks > 1 and one.bytes > 0]


def _stages(sizes: Sizes) -> Iterator[Collective]:
    """States to the stage behind, their gradients to the one before; of a tied table both gradients."""
    handed = sum(part.sends + part.receives for part in sizes.parts)
    states = sizes.tokens // sizes.tensor * sizes.model.width * sizes.element
    ranks = sizes.pipeline
    yield Collective("pp", "point to point", ranks, handed * sizes.micro_batches, states)
    if sizes.model.tied and sizes.first != sizes.last:
        table = Parameter("embedding", (sizes.model.vocabulary_size, sizes.model.width), 0)
        yield Collective("pp", "point to point", ranks, 1, table.shard(sizes.tensor, sizes.sharing) * _FP32)


def _parameters(sizes: Sizes) -> Iterator[Collective]:
    """FSDP2: gathered in the compute type, gradients reduced in fp32, once a step."""
    # With one micro-batch a block is given up after its forward pass; the root never is.
    again = 1 if sizes.accumulates else 2
    roots = [(root, 1, 1) for root in root_units(sizes)]
    for unit, units, gathers in ((block_unit(sizes), sizes.layers, again), *roots):
        whole = unit.shard * sizes.sharing
        yield Collective("dp_shard", "all-gather", sizes.sharing, gathers * units, whole * sizes.element)
        yield Collective("dp_shard", "reduce-scatter", sizes.sharing, units, whole * _FP32)
        yield Collective("dp_replicate", "all-reduce", sizes.replicate, units, unit.shard * _FP32)
        # FSDP2 sums what ranks of the tensor axis add to a norm, in fp32: see `sum_norms_in_fp32`.
        for norm in unit.norms:
            yield Collective("tp", "all-reduce", sizes.tensor, units, norm * _FP32)


def _sequence(sizes: Sizes) -> Iterator[Collective]:
    """Two gathers and two sums in each block, and their opposites in its backward pass."""
    again = 0 if sizes.checkpointing == "none" else 1
    blocks = sizes.layers * sizes.micro_batches
    size = sizes.tokens * sizes.model.width * sizes.element
    yield Collective("tp", "all-gather", sizes.tensor, blocks * (4 + 2 * again), size)
    # Computing again ends before the block's last sum, which the backward pass does not need.
    yield Collective("tp", "reduce-scatter", sizes.tensor, blocks * (4 + again), size)


def _keys_and_values(sizes: Sizes) -> Iterator[Collective]:
    """Of whole rows, gathered in each block; their gradients are summed."""
    model = sizes.model
    again = 0 if sizes.checkpointing == "none" else 1
    blocks = sizes.layers * sizes.micro_batches
    keys = model.kv_heads * model.head_dim // sizes.tensor
    size = sizes.micro_batch * sizes.sequence_length * keys * sizes.element
    yield Collective("cp", "all-gather", sizes.context, 2 * blocks * (1 + again), size)
    yield Collective("cp", "reduce-scatter", sizes.context, 2 * blocks, size)


def _vocabulary(sizes: Sizes) -> Iterator[Collective]:
    """Embedding and loss, of which each rank holds some rows; every token is taken to have a label."""
    passes, tensor = sizes.micro_batches, sizes.tensor
    size = sizes.tokens * sizes.model.width * sizes.element
    ends = passes * (sizes.first + sizes.last)
    yield Collective("tp", "all-gather", tensor, ends, size)
    yield Collective("tp", "reduce-scatter", tensor, ends, size)
    if sizes.last:
        # The largest logit of each token; then the sum of exponentials and the label's logit.
        yield Collective("tp", "all-reduce", tensor, passes, sizes.tokens * _FP32)
        yield Collective("tp", "all-reduce", tensor, passes, 2 * sizes.tokens * _FP32)
