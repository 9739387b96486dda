"""Keys and values in pages: the same documents, whoever else is there and however few pages there are."""

import copy
import importlib.util

import numpy as np
import pytest
import torch
from routes import send_all
from synthesis_world import (
    CONTEXT,
    make_engine,
    make_pages_small,
    make_requests,
    same,
    tiny_model,
    token_of_bits,
)

from megasbp.errors import InputError
from megasbp.model.paged_cache import PagedCache
from megasbp.synthesis import engine as engine_module

MAXIMUM = 24


@pytest.fixture(autouse=True)
def small_pages(monkeypatch):
    """Four pages a slot."""
    make_pages_small(monkeypatch)


@pytest.fixture(scope="module")
def model():
    return tiny_model()


def test_documents_are_those_of_whole_slots(model):
    requests = make_requests(40)
    expected = make_engine(model, paged=False).generate(requests, MAXIMUM)
    assert same(make_engine(model, paged=True).generate(requests, MAXIMUM), expected)


def test_not_one_bit_depends_on_order_neighbours_and_pages(model, monkeypatch):
    monkeypatch.setattr(engine_module, "sample", token_of_bits)
    requests = make_requests(24)
    engine = make_engine(model, paged=True)
    together = engine.generate(requests, MAXIMUM)
    assert same(engine.generate(requests[::-1], MAXIMUM), together[::-1])
    assert same([engine.generate([request], MAXIMUM)[0] for request in requests[:6]], together[:6])
    # Pages for two documents at a time, or a little more.
    few = make_engine(model, paged=True, cache_tokens=2 * CONTEXT + 16)
    assert same(few.generate(requests, MAXIMUM), together)


def test_a_stream_that_was_left_gives_its_pages_back(model):
    engine = make_engine(model, paged=True, cache_tokens=2 * CONTEXT)
    requests = make_requests(12)
    expected = engine.generate(requests, MAXIMUM)
    stream = engine.stream(requests, MAXIMUM)
    next(stream)
    stream.close()
    assert same(engine.generate(requests, MAXIMUM), expected)


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs triton")
def test_kernels_of_a_gpu_write_the_same_documents(model, monkeypatch):
    requests = make_requests(6)
    expected = make_engine(model, paged=True).generate(requests, 5)
    send_all(monkeypatch, "triton")
    # In the interpreter where there is no GPU.
    there = copy.deepcopy(model).to("cuda" if torch.cuda.is_available() else "cpu")
    assert same(make_engine(there, paged=True).generate(requests, 5), expected)


def test_pages_are_handed_out_and_taken_back(model):
    cache = PagedCache(model.config, slots=3, capacity=64, tokens=80)
    assert cache.nbytes == 2 * 2 * 80 * 2 * 8 * 4  # Keys and values, layers, tokens, heads, size, bytes.
    assert cache.reserve(0, 33)
    assert not cache.reserve(1, 33)
    assert cache.reserve(2, 32)
    cache.release(0)
    assert cache.reserve(1, 48)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [({"slots": 0}, "slots is 0"), ({"capacity": 40}, "multiples of 16"), ({"tokens": 48}, "64 or more")],
)
def test_impossible_sizes_are_refused(model, sizes, message):
    with pytest.raises(ValueError, match=message):
        PagedCache(model.config, **{"slots": 2, "capacity": 64, **sizes})


def test_places_outside_the_cache_are_refused(model):
    cache = PagedCache(model.config, slots=2, capacity=64)
    one, valid = torch.ones(1, 1, dtype=torch.int64), torch.ones(1, 1, dtype=torch.bool)
    with pytest.raises(ValueError, match="position 64"):
        cache.lanes(one[0], 64 * one, valid)
    with pytest.raises(ValueError, match="slot 2"):
        cache.lanes(2 * one[0], one, valid)


def test_a_prompt_without_room_is_named_with_pages_too(model):
    engine = make_engine(model, paged=True)
    (request,) = make_requests(1)
    long = engine_module.Request(request.seed_document, 0, np.full(CONTEXT, 3))
    with pytest.raises(InputError, match="has 64 tokens; allowed: 1 to 63"):
        engine.generate([long], MAXIMUM)
