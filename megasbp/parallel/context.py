"""Context parallelism: each rank of a group computes some tokens of each row, and attends to all before them.

Keys and values are gathered in every layer; queries, activations and the loss stay where their tokens are. A
row is cut into twice as many pieces as there are ranks, and rank c takes pieces c and 2C - 1 - c: causal
attention over an early piece and a late one is as much work on every rank (Llama team, arXiv 2407.21783,
section 3.3.2).
"""

import inspect
from functools import lru_cache
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh

from megasbp.kernels.attention import Segments, attention_at
from megasbp.kernels.attention_backend import Backend
from megasbp.model.transformer import Block, Transformer
from megasbp.parallel.sequence import gather_sequence


def attend_in_context(model: Transformer, mesh: DeviceMesh, backend: Backend) -> None:
    """Has the blocks take their tokens for a rank's part of whole rows, in place.

    Args:
        mesh: the ranks that share a row, one-dimensional.
        backend: of `attention_at`.
    """
    for block in model.blocks.values():
        assert isinstance(block, Block)
        block.attention.attend = ContextAttention(mesh.get_group(), backend)


def take_context_part(module: nn.Module, mesh: DeviceMesh, names: tuple[str, ...]) -> None:
    """Takes this rank's tokens out of what a module is called with; all else stays as it is.

    The module is then called with whole rows on every rank, of a multiple of twice the ranks in length, and
    gives the loss of this rank's tokens, or their states.

    Args:
        names: arguments of its `forward`, [B, S].
    """
    group = mesh.get_group()
    order = tuple(inspect.signature(module.forward).parameters)

    def take(
        module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        given = dict(zip(order, arguments, strict=False)) | named
        whole = next(given[name] for name in names if given.get(name) is not None)
        places = _places_on(whole.shape[1], group.rank(), group.size(), whole.device)
        for name in names:
            if given.get(name) is not None:
                given[name] = given[name].index_select(1, places)
        return (), given

    module.register_forward_pre_hook(take, with_kwargs=True)


def context_places(length: int, rank: int, ranks: int) -> torch.Tensor:
    """int64 [length / ranks]: the tokens of a row that a rank computes, rising."""
    piece = length // (2 * ranks)
    first, second = (torch.arange(piece) + number * piece for number in (rank, 2 * ranks - 1 - rank))
    return torch.cat((first, second))


# Copies to a GPU, for which the host would wait in every layer; torch.compile would not see that these stay.
@torch.compiler.disable
@lru_cache(maxsize=64)
def _places_on(length: int, rank: int, ranks: int, device: torch.device) -> torch.Tensor:
    return context_places(length, rank, ranks).to(device)


@torch.compiler.disable
@lru_cache(maxsize=64)
def _order_on(length: int, ranks: int, device: torch.device) -> torch.Tensor:
    """int64 [length]: where each token of a row lies among those of all ranks, one rank after the other."""
    places = [context_places(length, rank, ranks) for rank in range(ranks)]
    return torch.cat(places).argsort().to(device)


class ContextAttention:
    """`attention` of this rank's queries over the keys and values of all ranks of a group."""

    def __init__(self, group: dist.ProcessGroup, backend: Backend = "auto") -> None:
        self._group, self._backend = group, backend

    def __call__(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, segments: Segments | None
    ) -> torch.Tensor:
        """[B, S / C, H, E], of tokens of this rank; `segments` is of the whole rows."""
        ranks = self._group.size()
        length = k.shape[1] * ranks
        order = _order_on(length, ranks, k.device)
        k, v = (gather_sequence(x, self._group).index_select(1, order) for x in (k, v))
        places = _places_on(length, self._group.rank(), ranks, q.device)
        return attention_at(q, k, v, places, segments, self._backend)
