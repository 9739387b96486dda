"""A table that is the embedding on the first stage of a pipeline and the output layer on the last one."""

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn

from megasbp.parallel.shards import local_tensor


@dataclass(frozen=True)
class TiedTable:
    """Two copies of one table, equal at every step: their gradients are added, their updates are the same.

    Attributes:
        group: the ranks of the pipeline.
        first, last: which of them have the first and the last stage; one rank may have both.
        table: on the first stage's rank, the embedding: it is the one that checkpoints and norms count.
        copy: on the last stage's rank, the output layer.
    """

    group: dist.ProcessGroup
    first: int
    last: int
    table: nn.Parameter | None
    copy: nn.Parameter | None

    def add_gradients(self) -> None:
        """Gives both the sum of their gradients; all ranks call it, between backward pass and optimiser."""
        if self.table is not None and self.copy is not None:
            sum_ = _gradient(self.table).add_(_gradient(self.copy))
            _gradient(self.copy).copy_(sum_)
            return
        if self.table is None and self.copy is None:
            return
        mine = _gradient(self.table if self.table is not None else self.copy)
        other = torch.empty_like(mine)
        # No batch_isend_irecv: NCCL carries a batch over a communicator of the whole group, which all of its
        # ranks must make together, and those between first and last do not come here. A single send or
        # receive has a communicator of the two.
        if self.table is not None:
            dist.send(mine, group=self.group, group_dst=self.last)
            dist.recv(other, group=self.group, group_src=self.last)
        else:
            dist.recv(other, group=self.group, group_src=self.first)
            dist.send(mine, group=self.group, group_dst=self.first)
        # A sum of two numbers has no order, so both ranks get the same bits.
        mine.add_(other)

    def follow(self, of_table: list[torch.Tensor], of_copy: list[torch.Tensor]) -> None:
        """Copies what belongs to the table to its copy: after loading or initialising; all ranks call it.

        Args:
            of_table, of_copy: tensors of the two, in one order; empty where a rank lacks one of them.
        """
        if self.table is not None and self.copy is not None:
            for source, target in zip(of_table, of_copy, strict=True):
                local_tensor(target).copy_(local_tensor(source))
            return
        for tensor in of_table:
            dist.send(local_tensor(tensor), group=self.group, group_dst=self.last)
        for tensor in of_copy:
            dist.recv(local_tensor(tensor), group=self.group, group_src=self.first)


def _gradient(parameter: nn.Parameter | None) -> torch.Tensor:
    assert parameter is not None and parameter.grad is not None
    return local_tensor(parameter.grad)
