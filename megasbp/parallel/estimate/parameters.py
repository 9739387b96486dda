"""The parameters of a rank: each declares its shape and the dimension that the tensor axis divides.

FSDP2 divides dimension 0 of what is left among the ranks of `Sizes.sharing`, in equal parts that the last
ranks may lack; the first rank holds the most, and the collectives move padded parts.
"""

import math
from dataclasses import dataclass

from megasbp.model.config import ModelConfig
from megasbp.parallel.estimate.sizes import Part, Sizes


@dataclass(frozen=True)
class Parameter:
    """A parameter by its name within its block, or within the model.

    Attributes:
        shape: whole.
        tensor_dim: the dimension that `apply_tensor_parallel` divides; None where every rank holds it whole.
    """

    name: str
    shape: tuple[int, ...]
    tensor_dim: int | None = None

    def unsharded(self, tensor: int) -> int:
        """Elements that a rank computes with."""
        return math.prod(self.shape) // (1 if self.tensor_dim is None else tensor)

    def shard(self, tensor: int, sharing: int) -> int:
        """Elements that the first rank holds, which is the size of every padded part."""
        rows = self.shape[0] // (tensor if self.tensor_dim == 0 else 1)
        return -(-rows // sharing) * (self.unsharded(tensor) // rows)


def block_parameters(model: ModelConfig) -> list[Parameter]:
    """Of one block."""
    width, queries = model.width, model.heads * model.head_dim
    keys = model.kv_heads * model.head_dim
    norms = [Parameter("attention_norm", (width,)), Parameter("feed_forward_norm", (width,))]
    if model.qk_norm:
        norms += [Parameter(f"attention.{name}_norm", (model.head_dim,)) for name in ("query", "key")]
    return [
        *norms,
        Parameter("attention.query", (queries, width), 0),
        Parameter("attention.key", (keys, width), 0),
        Parameter("attention.value", (keys, width), 0),
        Parameter("attention.output", (width, queries), 1),
        Parameter("feed_forward.gate", (model.feed_forward, width), 0),
        Parameter("feed_forward.up", (model.feed_forward, width), 0),
        Parameter("feed_forward.down", (width, model.feed_forward), 1),
    ]


def root_parameters(model: ModelConfig, part: Part) -> list[Parameter]:
    """Of a stage, outside its blocks; a tied table on the last stage is a copy."""
    table = (model.vocabulary_size, model.width)
    held = [Parameter("norm", (model.width,))] if part.last else []
    if part.first or (part.last and model.tied):
        held.append(Parameter("embedding", table, 0))
    if part.last and not model.tied:
        held.append(Parameter("output", table, 0))
    return held


@dataclass(frozen=True)
class Unit:
    """What FSDP2 gathers and reduces together: a block, or what lies outside the blocks.

    Attributes:
        unsharded: elements that a rank computes with.
        shard: elements that the first rank holds.
        norms: elements that all ranks of the tensor axis hold whole, a number for each parameter.
    """

    unsharded: int
    shard: int
    norms: tuple[int, ...]


def unit_of(parameters: list[Parameter], sizes: Sizes) -> Unit:
    """The parameters of a block, or of the root, on this rank."""
    return Unit(
        unsharded=sum(parameter.unsharded(sizes.tensor) for parameter in parameters),
        shard=sum(parameter.shard(sizes.tensor, sizes.sharing) for parameter in parameters),
        norms=tuple(
            parameter.unsharded(sizes.tensor) for parameter in parameters if parameter.tensor_dim is None
        ),
    )


def block_unit(sizes: Sizes) -> Unit:
    """One block."""
    return unit_of(block_parameters(sizes.model), sizes)


def root_units(sizes: Sizes) -> list[Unit]:
    """What each stage of the rank holds outside its blocks."""
    return [unit_of(root_parameters(sizes.model, part), sizes) for part in sizes.parts]


def rank_parameters(sizes: Sizes) -> int:
    """Elements that the first rank of those with the same stages holds, which no other of them exceeds."""
    return sizes.layers * block_unit(sizes).shard + sum(root.shard for root in root_units(sizes))
