"""Products that overlap with collectives: on one GPU the values of plain ones, and where they are refused.

What they compute on several ranks is part of the parity matrix (tests/distributed).
"""

import socket
from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist

from megasbp.parallel.asynchronous import asynchronous_problem, multiply_and_sum, multiply_gathered

GPU = torch.device("cuda", 1)


@pytest.fixture
def group_of_one(monkeypatch: pytest.MonkeyPatch) -> Iterator[dist.ProcessGroup]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    wanted = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": "0", "WORLD_SIZE": "1"}
    for name, value in wanted.items():
        monkeypatch.setenv(name, value)
    dist.init_process_group("nccl")
    yield dist.group.WORLD
    dist.destroy_process_group()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_group_of_one_gpu_computes_plain_products(group_of_one: dist.ProcessGroup) -> None:
    random = torch.Generator("cuda").manual_seed(0)
    x, *weights = (
        torch.randn(size, generator=random, device="cuda").bfloat16().requires_grad_()
        for size in ((2, 64, 128), (256, 128), (64, 128))
    )
    narrow = torch.randn(128, 256, generator=random, device="cuda").bfloat16().requires_grad_()
    wide, key = multiply_gathered(x, weights, group_of_one)
    found = multiply_and_sum(wide, narrow, group_of_one), key
    exact = [leaf.detach().double().requires_grad_() for leaf in (x, *weights, narrow)]
    expected = exact[0] @ exact[1].t() @ exact[3].t(), exact[0] @ exact[2].t()
    grads = [torch.randn(out.shape, generator=random, device="cuda").bfloat16() for out in found]
    of_found = torch.autograd.grad(found, (x, *weights, narrow), grads)
    of_expected = torch.autograd.grad(expected, exact, [grad.double() for grad in grads])
    for value, truth in zip((*found, *of_found), (*expected, *of_expected), strict=True):
        # Each product rounds to 2**-9; the longest chain has three.
        assert float((value.double() - truth).norm() / truth.norm()) < 2**-7


def test_what_is_not_there_is_refused_with_the_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    assert asynchronous_problem(1, torch.device("cpu")) is None
    problem = asynchronous_problem(2, torch.device("cpu"))
    assert problem is not None and "this is a CPU; leave it out" in problem
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "can_device_access_peer", lambda device, peer: peer < 3)
    problem = asynchronous_problem(8, GPU)
    assert problem is not None and "4 GPUs; set parallel.tensor to at most 4" in problem
    problem = asynchronous_problem(4, GPU)
    assert problem is not None and "GPU 1 cannot reach GPU 3; leave it out" in problem
    assert asynchronous_problem(2, GPU) is None
