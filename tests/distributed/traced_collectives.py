"""What collectives one process calls: their kind, the axis whose ranks take part, and the bytes."""

from collections import Counter

import torch
import torch.distributed as dist
from torch.utils._python_dispatch import TorchDispatchMode

from megasbp.parallel.runtime import PARAMETERS, REPLICATE, TENSOR, Runtime

# Operation, kind, and which of its arguments is the whole tensor.
_KINDS = {
    "_allgather_base_": ("all-gather", 0),
    "_reduce_scatter_base_": ("reduce-scatter", 1),
    "allreduce_": ("all-reduce", 0),
    "send": ("point to point", 0),
}


class TracedCollectives(TorchDispatchMode):
    """Counts calls and bytes by (axis, kind) while it is open.

    Attributes:
        calls, bytes: by "axis kind"; bytes are those of the whole tensor.
    """

    def __init__(self, runtime: Runtime) -> None:
        super().__init__()
        assert runtime.mesh is not None and runtime.context is not None and runtime.data is not None
        self.calls: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()
        assert runtime.pipeline is not None
        axes = {
            "all": dist.group.WORLD,
            "tp": runtime.mesh[TENSOR].get_group(),
            "cp": runtime.context.get_group(),
            "dp_shard": runtime.mesh[PARAMETERS].get_group(),
            "dp_replicate": runtime.mesh[REPLICATE].get_group(),
            "pp": runtime.pipeline.get_group(),
            "dp": runtime.data.get_group(),
        }
        self._axes = {axis: group.group_name for axis, group in axes.items()}
        self._named = {name: axis for axis, name in self._axes.items()}

    def canonical(self, axis: str) -> str:
        """The name under which an axis is counted: axes of the same ranks share a group."""
        return self._named[self._axes[axis]]

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        space, name = str(function).split(".")[:2]
        if space == "c10d" and name != "recv_":
            kind, place = _KINDS[name]
            tensors = arguments[place]
            size = sum(x.nbytes for x in (tensors if isinstance(tensors, list) else [tensors]))
            groups = [x for x in arguments if isinstance(x, torch.ScriptObject)]
            (group,) = (x for x in groups if "ProcessGroup" in str(x._type()))
            self._count(self._named[dist.ProcessGroup.unbox(group).group_name], kind, size)
        elif space == "_c10d_functional" and name == "all_reduce":
            # DTensor's own, of tp alone; it may take the group of an equal mesh made earlier.
            self._count("tp", "all-reduce", arguments[0].nbytes)
        return function(*arguments, **(options or {}))

    def _count(self, axis: str, kind: str, size: int) -> None:
        self.calls[f"{axis} {kind}"] += 1
        self.bytes[f"{axis} {kind}"] += size
