"""What launching asks of a device. No GPU is needed: devices and launches are stand-ins.

They show that the tensors' device is the current one when a kernel is launched, not what a second GPU does.
"""

import contextlib
from types import SimpleNamespace

import pytest
import torch
from routes import routed_modules

from megasbp.kernels import custom_op, invariant_linear, sample, swiglu

pytest.importorskip("triton")

from megasbp.kernels.gpu import invariant_linear as gpu_invariant_linear
from megasbp.kernels.gpu import launch
from megasbp.kernels.gpu import sample as gpu_sample


@pytest.fixture(autouse=True)
def path():
    """These tests are not of a kernel: they run once, in place of the kernels' three times."""


@pytest.fixture
def entered(monkeypatch):
    """The tensors whose devices are made the current one at the moment."""
    now: list[torch.Tensor] = []

    @contextlib.contextmanager
    def device_of(tensor):
        now.append(tensor)
        yield
        now.pop()

    monkeypatch.setattr(torch.cuda, "device_of", device_of)
    return now


def test_an_operator_runs_on_the_device_of_its_first_tensor(entered, monkeypatch):
    gate, up, seen = torch.ones(4), torch.ones(4), []

    def route(*tensors):
        seen.extend(entered)
        return "torch"

    monkeypatch.setattr(swiglu, "route", route)
    # What the dispatcher calls for tensors of a GPU.
    keys = torch._C.DispatchKeySet(torch._C.DispatchKey.CUDA)
    torch.ops.megasbp.swiglu_forward.default.redispatch(keys, gate, up)
    (tensor,) = seen
    assert tensor is gate
    assert entered == []


def test_an_operator_on_a_cpu_asks_for_no_device(entered, monkeypatch):
    monkeypatch.setattr(swiglu, "route", lambda *tensors: "torch" if not entered else pytest.fail("entered"))
    torch.ops.megasbp.swiglu_forward.default(torch.ones(4), torch.ones(4))


def test_every_operator_does_so_and_begins_with_a_tensor():
    assert len(routed_modules()) > 5
    names = sorted(custom_op._LIBRARY._op_defs)
    assert "megasbp::attention_backward" in names
    for name in names:
        assert torch._C._dispatch_has_kernel_for_dispatch_key(name, "CUDA")
        schema = getattr(torch.ops.megasbp, name.removeprefix("megasbp::")).default._schema
        assert str(schema.arguments[0].type) == "Tensor"


def test_sampling_is_launched_on_the_device_of_the_logits(entered, monkeypatch):
    def launched(logits, *_):
        (tensor,) = entered
        assert tensor is logits
        return "tokens"

    monkeypatch.setattr(sample, "route", lambda *tensors: "triton")
    monkeypatch.setattr(gpu_sample, "sample", launched)
    logits, address = torch.ones(2, 8), torch.zeros(2, 3, dtype=torch.int64)
    assert sample.sample(logits, 1.0, 0.9, 0, address) == "tokens"
    assert entered == []


def test_invariant_products_are_launched_on_the_device_of_the_rows(entered, monkeypatch):
    def launched(rows, *_):
        (tensor,) = entered
        assert tensor.data_ptr() == rows.data_ptr()
        return rows

    monkeypatch.setattr(invariant_linear, "route", lambda *tensors: "triton")
    monkeypatch.setattr(gpu_invariant_linear, "product", launched)
    invariant_linear.invariant_linear(torch.ones(2, 8), torch.ones(8, 8))
    assert entered == []


@pytest.mark.parametrize(
    ("hip", "capability", "copies"),
    [
        (None, (8, 9), False),
        (None, (9, 0), True),
        (None, (10, 0), True),
        # gfx90a, gfx942 and gfx1100.
        ("6.4", (9, 0), False),
        ("6.4", (9, 4), False),
        ("6.4", (11, 0), False),
    ],
)
def test_the_copy_engine_is_that_of_hopper_and_later_and_amd_has_none(monkeypatch, hip, capability, copies):
    monkeypatch.setattr(torch.version, "hip", hip)
    monkeypatch.setattr(launch, "_capability", lambda device: capability)
    tensor = SimpleNamespace(shape=(1, 8, 2, 128), device=torch.device("cuda"), data_ptr=lambda: 4096)
    assert launch.copies_tiles(tensor) is copies
