"""A host that is a step ahead of the device: the same documents, and each step is launched before a look."""

import numpy as np
import pytest
import torch
from recorded_graph import record
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

from megasbp.kernels import paged_attention
from megasbp.model import host_copies, paged_cache
from megasbp.synthesis import engine as engine_module
from megasbp.synthesis.decode_graph import GraphedStep
from megasbp.synthesis.exchange import Request

MAXIMUM = 24


@pytest.fixture(autouse=True)
def small_pages(monkeypatch):
    """Four pages a slot."""
    make_pages_small(monkeypatch)


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.mark.parametrize("paged", [False, True])
@pytest.mark.parametrize("maximum", [1, 2, MAXIMUM])
def test_documents_are_those_of_a_host_that_waits(model, paged, maximum):
    requests = make_requests(40)
    expected = make_engine(model, paged=paged, ahead=False).generate(requests, maximum)
    reasons = {completion.finish_reason for completion in expected}
    assert maximum < MAXIMUM or reasons == {"eos", "length"}
    engine = make_engine(model, paged=paged, ahead=True)
    assert same(engine.generate(requests, maximum), expected)
    assert same(engine.generate(requests[::-1], maximum), expected[::-1])


def test_not_one_bit_depends_on_it(model, monkeypatch):
    monkeypatch.setattr(engine_module, "sample", token_of_bits)
    requests = make_requests(24)
    expected = make_engine(model, paged=True, ahead=False).generate(requests, MAXIMUM)
    # Pages for two documents at a time, or a little more: given away as soon as an end is seen.
    few = make_engine(model, paged=True, ahead=True, cache_tokens=2 * CONTEXT + 16)
    assert same(few.generate(requests, MAXIMUM), expected)


def test_prompts_are_shared_too(model):
    prompts = [request.prompt for request in make_requests(60) if len(request.prompt) > 17][:6]
    requests = [
        Request(number, draw, prompt, same_prompt=draw > 0)
        for number, prompt in enumerate(prompts)
        for draw in range(5)
    ]
    expected = make_engine(model, paged=True, share_prompts=False, ahead=False).generate(requests, MAXIMUM)
    assert same(make_engine(model, paged=True, ahead=True).generate(requests, MAXIMUM), expected)


def test_a_captured_step_reads_what_the_last_one_drew(model, monkeypatch):
    send_all(monkeypatch, "torch")
    monkeypatch.setattr(paged_cache, "paged_attention", paged_attention._paged_attention)
    requests = make_requests(30)
    expected = make_engine(model, paged=True, top_p=1.0, ahead=False).generate(requests, MAXIMUM)
    engine = make_engine(model, paged=True, top_p=1.0, ahead=True)

    def capture(call):
        pages = engine._pages
        lasting = (*model.parameters(), pages._keys, pages._values, pages._table, engine._all_slots)
        return record(call, (*lasting, *engine._step._buffers))

    engine._step = GraphedStep(engine._draw, capture)
    assert same(engine.generate(requests, MAXIMUM), expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("cuda_graphs", ["off", "on"])
def test_a_gpu_writes_the_same_documents(cuda_graphs):
    model, requests = tiny_model().cuda(), make_requests(40)
    expected = make_engine(model, cuda_graphs="off").generate(requests, MAXIMUM)
    engine = make_engine(model, cuda_graphs=cuda_graphs, ahead=True)
    assert same(engine.generate(requests, MAXIMUM), expected)


@pytest.mark.parametrize("ahead", [False, True])
def test_a_step_is_launched_before_the_last_one_is_looked_at(model, ahead, monkeypatch):
    events = []

    class Watched(host_copies.HostCopy):
        def wait(self):
            events.append("look")
            return super().wait()

    engine = make_engine(model, ahead=ahead, stop_token=-1)
    step = engine._step
    monkeypatch.setattr(engine_module, "HostCopy", Watched)
    monkeypatch.setattr(engine, "_step", lambda *given: (events.append("launch"), step(*given))[1])
    engine.generate([Request(number, 0, np.array([3])) for number in range(8)], 4)
    waiting = ["launch", "look"] * 4
    # The host knows a limit beforehand: nothing is launched for a document that is complete.
    assert events == (["launch", *["launch", "look"] * 3, "look"] if ahead else waiting)


def test_a_stream_that_was_left_is_forgotten(model):
    engine = make_engine(model, paged=True, ahead=True)
    requests = make_requests(20)
    expected = engine.generate(requests, MAXIMUM)
    stream = engine.stream(requests, MAXIMUM)
    next(stream)
    stream.close()
    assert same(engine.generate(requests, MAXIMUM), expected)


def test_what_is_drawn_behind_an_end_belongs_to_nobody(model, monkeypatch):
    """A slot that is used again gets a token of the document before, if nobody counts its uses."""
    requests = make_requests(40)
    expected = make_engine(model, ahead=True).generate(requests, MAXIMUM)
    engine = make_engine(model, ahead=True)
    look_at = engine._look_at

    def careless(launched):
        launched.uses[:] = engine._uses[launched.rows]
        return look_at(launched)

    monkeypatch.setattr(engine, "_look_at", careless)
    found = dict(engine.stream(requests, MAXIMUM))
    assert len(found) < 40 or not same([found[number] for number in range(40)], expected)
