"""Sampling in Triton against the reference beside it; see test_sample.py for what is drawn from what.

Of its own, for a program costs the interpreter milliseconds a row.
"""

import contextlib

import pytest
import torch
from kernel_checks import normal_tensor

from megasbp.kernels import sample as module
from megasbp.kernels.gpu import sample as gpu
from megasbp.kernels.sample import nucleus

# Both words of it are negative as int32.
KEY = 0xF123456789ABCDEF


@pytest.fixture(autouse=True)
def path():
    """In place of the three of other kernels."""
    with torch.device("cuda") if torch.cuda.is_available() else contextlib.nullcontext():
        yield "triton"


def addresses(rows: int) -> torch.Tensor:
    address = torch.stack((torch.arange(rows), torch.arange(rows) % 3, torch.arange(rows) * 7 + 1), 1)
    address[-1] = 2**32 - 1
    return address


def case(rows: int, size: int, spread: float) -> torch.Tensor:
    # One decimal makes ties.
    return (spread * normal_tensor(7, rows, size)).round(decimals=1).to(torch.float32)


@pytest.mark.parametrize(("rows", "size"), [(1, 1), (3, 97), (2, 5000)])
@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_probabilities_are_those_of_the_softmax_and_their_units_are_added_exactly(rows, size, temperature):
    logits = case(rows, size, 3.0)
    probabilities, units = gpu.softmax(logits, temperature)
    exact = (logits.double() / temperature).softmax(-1)
    # The temperature and the exponent, down to -30 / temperature, are rounded, then exp, quotient and sums.
    assert (probabilities.double() / exact - 1).abs().max() <= (60 / temperature + 32) * 2.0**-24
    assert torch.equal(units, (probabilities.double() * 2.0**40).long().sum(-1))


@pytest.mark.parametrize("top_p", [1e-9, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("spread", [0.0, 0.1, 2.0, 30.0])
def test_the_cut_is_that_of_the_reference(top_p, spread):
    probabilities = case(4, 301, spread).softmax(-1)
    whole = (probabilities.double() * 2.0**40).long().sum(-1)
    bits, kept = gpu.cut(probabilities, (whole.double() * top_p).ceil().long())
    of_tokens = probabilities.view(torch.int32)
    equal = of_tokens == bits[:, None]
    inside = (of_tokens > bits[:, None]) | equal & (equal.cumsum(1) <= kept[:, None])
    assert torch.equal(inside, nucleus(probabilities, top_p))


@pytest.mark.parametrize(("rows", "size", "spread"), [(12, 97, 2.0), (3, 5000, 0.5), (2, 2049, 0.0)])
@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 0.9), (0.7, 1.0), (1.3, 0.3)])
def test_tokens_are_those_of_the_reference(rows, size, spread, temperature, top_p):
    logits = case(rows, size, spread)
    found = gpu.sample(logits, temperature, top_p, KEY, addresses(rows))
    assert torch.equal(found, module._sample(logits, temperature, top_p, KEY, addresses(rows)))


def test_a_row_draws_the_same_token_alone_and_among_others():
    logits, address = case(6, 97, 2.0), addresses(6)
    together = gpu.sample(logits, 0.8, 0.9, KEY, address)
    assert torch.equal(gpu.sample(logits.flip(0), 0.8, 0.9, KEY, address.flip(0)), together.flip(0))
    assert torch.equal(gpu.sample(logits[4:5], 0.8, 0.9, KEY, address[4:5]), together[4:5])


def test_tokens_are_the_frozen_ones_of_every_device(monkeypatch):
    monkeypatch.setattr(module, "route", lambda *tensors: "triton")
    logits = torch.linspace(-1, 1, 50).expand(8, 50)
    address = torch.stack((torch.arange(8), torch.arange(8) % 3, torch.arange(8) * 7 + 1), 1)
    tokens = module.sample(logits, 1.0, 0.9, 0x0123456789ABCDEF, address)
    assert tokens.tolist() == [37, 27, 31, 26, 16, 12, 43, 41]


def test_of_equal_tokens_the_first_make_the_nucleus():
    tokens = gpu.sample(torch.zeros(12, 8), 1.0, 0.25, KEY, addresses(12))
    assert set(tokens.tolist()) == {0, 1}


def test_impossible_tokens_are_never_drawn_and_may_fill_whole_blocks():
    logits = torch.full((3, 5000), -torch.inf)
    logits[:, 4321] = 0.0
    for top_p in (0.9, 1.0):
        assert (gpu.sample(logits, 1.0, top_p, KEY, addresses(3)) == 4321).all()


def test_a_tiny_temperature_takes_the_highest_logit():
    logits = normal_tensor(1, 4, 100, dtype=torch.float32) * 100
    assert torch.equal(gpu.sample(logits, 1e-30, 0.9, KEY, addresses(4)), logits.argmax(-1))


def test_no_rows_draw_no_tokens():
    assert gpu.sample(torch.ones(0, 8), 1.0, 0.9, KEY, addresses(1)[:0]).shape == (0,)
