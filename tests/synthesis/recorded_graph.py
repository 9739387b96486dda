"""A graph that needs no GPU: it records the operations of a call, and repeats them on the memory of then.

Every operand must lie in memory that is there for good, or come from an operation of the call: what a CUDA
graph would read from somewhere else is an error here.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def _memory(value: Any) -> list[int]:
    """Where the tensors in a structure lie."""
    tensors = (leaf for leaf in tree_leaves(value) if isinstance(leaf, torch.Tensor))
    return [tensor.untyped_storage().data_ptr() for tensor in tensors if tensor.numel()]


class _Tape(TorchDispatchMode):
    def __init__(self, lasting: Iterable[torch.Tensor]) -> None:
        super().__init__()
        self._known = set(_memory(list(lasting)))
        # Results stay here, so that their memory is not used again.
        self._operations: list[tuple[Any, tuple, dict, Any]] = []

    def __torch_dispatch__(self, operation, types, arguments=(), named=None):
        for place in _memory((arguments, named)):
            if place not in self._known:
                raise ValueError(f"{operation} reads a tensor that is in no static buffer")
        result = operation(*arguments, **(named or {}))
        self._known.update(_memory(result))
        self._operations.append((operation, arguments, named or {}, result))
        return result

    def replay(self) -> None:
        """Every operation again, on the tensors that it had; what it makes goes where it went then."""
        for operation, arguments, named, result in self._operations:
            again = operation(*arguments, **named)
            for before, now in zip(tree_leaves(result), tree_leaves(again), strict=True):
                if isinstance(before, torch.Tensor) and before.data_ptr() != now.data_ptr():
                    before.copy_(now)


def record(
    call: Callable[[], torch.Tensor], lasting: Iterable[torch.Tensor]
) -> tuple[Callable[[], None], torch.Tensor]:
    """In place of `decode_graph.capture_cuda_graph`.

    Args:
        lasting: memory that the call may read: static buffers, weights, the cache.

    Raises:
        ValueError: it reads something else.
    """
    tape = _Tape(lasting)
    with tape:
        result = call()
    return tape.replay, result
