"""Bytes of tensors alive while code runs, every storage counted once, as an allocator without waste would."""

import weakref

import torch
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class TracedMemory(TorchDispatchMode):
    """Follows the storages that operations make while it is open.

    Attributes:
        peak: the most bytes alive behind any operation.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._storages: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        given = {id(x.untyped_storage()) for x in _tensors((arguments, options))}
        result = function(*arguments, **(options or {}))
        known = len(self._storages)
        for x in _tensors(result):
            storage = x.untyped_storage()
            key = id(storage)
            if key not in given:
                self._storages[key] = weakref.ref(storage, lambda _, key=key: self._storages.pop(key, None))
        if len(self._storages) > known:
            self.peak = max(self.peak, self.alive)
        return result

    @property
    def alive(self) -> int:
        """Bytes now; FSDP2 gives memory up by making a storage empty."""
        held = (reference() for reference in list(self._storages.values()))
        return sum(storage.nbytes() for storage in held if storage is not None)


def _tensors(tree: object) -> list[torch.Tensor]:
    tensors = [x for x in tree_leaves(tree) if isinstance(x, torch.Tensor)]
    return [x._local_tensor if isinstance(x, DTensor) else x for x in tensors]
