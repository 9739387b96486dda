"""Decode steps that are captured once and repeated write the documents that plain steps write."""

import functools

import pytest
import torch
from recorded_graph import record
from routes import send_all
from synthesis_world import make_engine, make_requests, same, tiny_model

from megasbp.errors import InputError
from megasbp.kernels import paged_attention
from megasbp.model import paged_cache
from megasbp.synthesis import engine as engine_module
from megasbp.synthesis.config import SynthesisConfig
from megasbp.synthesis.decode_graph import GraphedStep
from megasbp.synthesis.engine import Engine
from megasbp.synthesis.exchange import Request

MAXIMUM = 24


@pytest.fixture(autouse=True)
def small_pages(monkeypatch):
    """Four pages a slot."""
    monkeypatch.setattr(paged_cache, "PAGE_TOKENS", 16)
    monkeypatch.setattr(engine_module, "PAGE_TOKENS", 16)


@pytest.fixture
def in_pytorch(monkeypatch):
    """C++ kernels get addresses, which are no operands of an operation."""
    send_all(monkeypatch, "torch")
    # Its checks pick out the pages in use, on a CPU only: their number is no matter of a graph.
    monkeypatch.setattr(paged_cache, "paged_attention", paged_attention._paged_attention)


def plain_engine(model, **settings) -> Engine:
    """The nucleus of PyTorch's reference has another shape every time; Triton's has not."""
    return make_engine(model, paged=True, top_p=1.0, **settings)


def graphed_engine(model, draw=None, **settings) -> tuple[Engine, list]:
    """An engine whose steps are recorded, and the captures so far."""
    engine, captures = plain_engine(model, **settings), []

    def capture(call):
        captures.append(call)
        pages = engine._pages
        lasting = (*model.parameters(), pages._keys, pages._values, pages._table, engine._all_slots)
        return record(call, (*lasting, *engine._step._buffers))

    engine._step = GraphedStep(engine._draw if draw is None else functools.partial(draw, engine), capture)
    return engine, captures


@pytest.mark.usefixtures("in_pytorch")
def test_captured_steps_write_the_documents_of_plain_steps():
    model, requests = tiny_model(), make_requests(30)
    expected = plain_engine(model).generate(requests, MAXIMUM)
    engine, captures = graphed_engine(model)
    assert same(engine.generate(requests, MAXIMUM), expected)
    # The next stream, in another order, uses the same graph.
    assert same(engine.generate(requests[::-1], MAXIMUM), expected[::-1])
    assert len(captures) == 1


@pytest.mark.usefixtures("in_pytorch")
def test_pages_and_shared_prompts_reach_a_captured_step():
    model, prompt = tiny_model(), make_requests(40)[11].prompt
    requests = [Request(3, draw, prompt, same_prompt=draw > 0) for draw in range(9)]
    expected = plain_engine(model, share_prompts=False).generate(requests, MAXIMUM)
    engine, _ = graphed_engine(model, cache_tokens=9 * 16)
    assert same(engine.generate(requests, MAXIMUM), expected)


@pytest.mark.usefixtures("in_pytorch")
@pytest.mark.parametrize("column", [0, 1, 2, 3, 5])
def test_a_tensor_that_is_in_no_static_buffer_is_caught(column):
    def careless(engine, fed, drawn_before):
        own = torch.tensor(engine._fed[:, column])
        fed = torch.cat((fed[:, :column], own[:, None], fed[:, column + 1 :]), 1)
        return engine._draw(fed, drawn_before)

    engine, _ = graphed_engine(tiny_model(), careless)
    with pytest.raises(ValueError, match="in no static buffer"):
        engine.generate(make_requests(30), MAXIMUM)


def test_a_step_is_repeated_on_what_the_buffers_hold():
    buffers = []

    def capture(call):
        return record(call, step._buffers)

    step = GraphedStep(lambda x: (buffers.append(x), x + 1)[1], capture)
    assert step(torch.tensor([1, 2])).tolist() == [2, 3]
    assert step(torch.tensor([5, 7])).tolist() == [6, 8]
    assert len(buffers) == 1
    with pytest.raises(ValueError, match=r"takes torch.int64 \(2,\)"):
        step(torch.tensor([1, 2, 3]))
    with pytest.raises(ValueError, match=r"an input is torch.float32"):
        step(torch.tensor([1.0, 2.0]))


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about a machine without a GPU")
def test_graphs_are_off_on_a_cpu_and_refused_if_asked_for():
    model, requests = tiny_model(), make_requests(6)
    auto = make_engine(model, cuda_graphs="auto")
    assert not isinstance(auto._step, GraphedStep)
    assert same(auto.generate(requests, MAXIMUM), make_engine(model).generate(requests, MAXIMUM))
    with pytest.raises(InputError, match='needs a GPU with triton; set it to "auto" or "off"'):
        make_engine(model, cuda_graphs="on")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("top_p", [1.0, 0.9])
def test_a_gpus_graph_writes_the_documents_of_plain_steps(top_p):
    model, requests = tiny_model().cuda(), make_requests(40)
    expected = make_engine(model, top_p=top_p, cuda_graphs="off").generate(requests, MAXIMUM)
    graphed = make_engine(model, top_p=top_p)
    assert isinstance(graphed._step, GraphedStep)
    assert same(graphed.generate(requests, MAXIMUM), expected)


def test_the_default_renames_no_stage_of_older_runs():
    assert "cuda_graphs" not in SynthesisConfig().content()
