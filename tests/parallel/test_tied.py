"""First and last rank of a pipeline exchange the gradients of their table, and wait for nobody else."""

import queue
import threading
from typing import Any
from unittest import mock

import pytest
import torch
from torch import nn

from megasbp.parallel import tied
from megasbp.parallel.tied import TiedTable

FIRST, BETWEEN, LAST = range(3)


class TwoAtATime:
    """torch.distributed of which single sends and receives are there, and nothing that all ranks must call.

    A send ends when it is received, as the largest of NCCL's do.
    """

    def __init__(self) -> None:
        self.rank = threading.local()
        self.calls: list[tuple[int, str, int]] = []
        self._sent: dict[tuple[int, int], queue.Queue[torch.Tensor]] = {
            (source, target): queue.Queue() for source in range(3) for target in range(3)
        }

    def send(self, tensor: torch.Tensor, *, group: object, group_dst: int) -> None:
        self.calls.append((self.rank.number, "send", group_dst))
        sent = self._sent[self.rank.number, group_dst]
        sent.put(tensor.clone())
        sent.join()

    def recv(self, tensor: torch.Tensor, *, group: object, group_src: int) -> None:
        self.calls.append((self.rank.number, "recv", group_src))
        sent = self._sent[group_src, self.rank.number]
        tensor.copy_(sent.get(timeout=10))
        sent.task_done()


def parameter(gradient: float) -> nn.Parameter:
    made = nn.Parameter(torch.zeros(3, 2))
    made.grad = torch.full((3, 2), gradient)
    return made


def test_only_first_and_last_rank_call_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in = TwoAtATime()
    monkeypatch.setattr(tied, "dist", stand_in)
    table, copy = parameter(1.0), parameter(2.0)
    held: dict[int, dict[str, Any]] = {
        FIRST: {"table": table, "copy": None},
        BETWEEN: {"table": None, "copy": None},
        LAST: {"table": None, "copy": copy},
    }

    def add(rank: int) -> None:
        stand_in.rank.number = rank
        TiedTable(mock.sentinel.group, FIRST, LAST, **held[rank]).add_gradients()

    ranks = [threading.Thread(target=add, args=(rank,), daemon=True) for rank in held]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(timeout=20)
    assert not any(rank.is_alive() for rank in ranks), stand_in.calls
    by_rank = {rank: [call[1:] for call in stand_in.calls if call[0] == rank] for rank in held}
    assert by_rank == {
        FIRST: [("send", LAST), ("recv", LAST)],
        BETWEEN: [],
        LAST: [("recv", FIRST), ("send", FIRST)],
    }
    for gradient in (table.grad, copy.grad):
        assert gradient is not None and torch.equal(gradient, torch.full((3, 2), 3.0))


def test_a_rank_that_has_both_ends_calls_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tied, "dist", TwoAtATime())
    table, copy = parameter(1.0), parameter(2.0)
    TiedTable(mock.sentinel.group, FIRST, FIRST, table, copy).add_gradients()
    for gradient in (table.grad, copy.grad):
        assert gradient is not None and torch.equal(gradient, torch.full((3, 2), 3.0))
