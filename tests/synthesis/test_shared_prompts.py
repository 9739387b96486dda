"""A prompt that several draws share is read once, and no bit of a document tells."""

import copy
import functools
import importlib.util
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from routes import send_all
from synthesis_world import (
    CONFIG,
    CONTEXT,
    VOCABULARY,
    make_engine,
    make_pages_small,
    open_seeds,
    run,
    same,
    tiny_model,
    token_of_bits,
)

from megasbp.model.page_pool import PagePool
from megasbp.synthesis import engine as engine_module
from megasbp.synthesis import provenance
from megasbp.synthesis.engine import Engine
from megasbp.synthesis.exchange import Request
from megasbp.synthesis.requests import locate_requests

MAXIMUM = 24
# Of one token; within a page; of a page and the last token; of whole pages and more; of nearly three pages.
LENGTHS = (1, 6, 17, 25, 33, 47)


@pytest.fixture(autouse=True)
def small_pages(monkeypatch):
    """Four pages a slot."""
    make_pages_small(monkeypatch)


@pytest.fixture(scope="module")
def model():
    return tiny_model()


def draws(lengths=LENGTHS, each=5) -> list[Request]:
    """So many draws of each prompt, one after the other."""
    generator = np.random.default_rng(4)
    prompts = [generator.integers(3, VOCABULARY, length) for length in lengths]
    return [
        Request(number, draw, prompt, same_prompt=draw > 0 and len(prompt) > 1)
        for number, prompt in enumerate(prompts)
        for draw in range(each)
    ]


@pytest.fixture
def bits_as_tokens(monkeypatch):
    """Any differing bit of the logits sends a document another way."""

    monkeypatch.setattr(engine_module, "sample", token_of_bits)


def alone(model, requests) -> list:
    return make_engine(model, paged=True, share_prompts=False).generate(requests, MAXIMUM)


@pytest.mark.parametrize("pages", [4, 5, 7, 12, 32])
def test_not_one_bit_depends_on_sharing_however_few_pages_there_are(model, pages, bits_as_tokens):
    requests = draws()
    engine = make_engine(model, paged=True, cache_tokens=16 * pages)
    shared = engine.generate(requests, MAXIMUM)
    assert same(shared, alone(model, requests))
    assert len({completion.tokens.tobytes() for completion in shared}) > 5
    # Nothing is left behind.
    assert same(engine.generate(requests, MAXIMUM), shared)


@pytest.mark.parametrize("pages", [4, 9, 32])
def test_drawn_documents_are_those_without_sharing(model, pages):
    requests = draws(each=7)
    shared = make_engine(model, paged=True, cache_tokens=16 * pages).generate(requests, MAXIMUM)
    assert same(shared, alone(model, requests))
    assert len({completion.tokens.tobytes() for completion in shared}) > 30


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs triton")
def test_kernels_of_a_gpu_share_prompts_too(model, monkeypatch):
    requests = draws(lengths=(17, 25), each=3)
    send_all(monkeypatch, "triton")
    # In the interpreter where there is no GPU.
    there = copy.deepcopy(model).to("cuda" if torch.cuda.is_available() else "cpu")
    shared = make_engine(there, paged=True).generate(requests, 4)
    expected = make_engine(there, paged=True, share_prompts=False).generate(requests, 4)
    assert same(shared, expected)
    assert sum(completion.shared_tokens for completion in shared) == 2 * 16 + 2 * 24


@pytest.mark.parametrize("pages", [4, 32])
def test_each_prompt_is_read_once_and_the_rest_is_counted(model, pages, monkeypatch):
    read = []
    decode = model.decode

    def recording(tokens, positions, cache, slots, valid):
        if tokens.shape[1] > 1:
            read.append(int(valid.sum()))
        return decode(tokens, positions, cache, slots, valid)

    monkeypatch.setattr(model, "decode", recording)
    completions = make_engine(model, paged=True, cache_tokens=16 * pages).generate(draws(), MAXIMUM)
    assert sum(read) == sum(length - 1 for length in LENGTHS)
    assert sum(one.shared_tokens for one in completions) == 4 * sum(length - 1 for length in LENGTHS)


def test_a_left_stream_holds_no_pages(model):
    engine = make_engine(model, paged=True, cache_tokens=CONTEXT)
    stream = engine.stream(draws(), MAXIMUM)
    next(stream)
    stream.close()
    assert same(engine.generate(draws(), MAXIMUM), alone(model, draws()))


def test_without_pages_every_prompt_is_read(model):
    completions = make_engine(model, paged=False).generate(draws(), MAXIMUM)
    assert same(completions, alone(model, draws()))
    assert not any(completion.shared_tokens for completion in completions)


def test_a_request_with_another_prompt_than_it_says_is_refused(model):
    requests = draws()
    requests[5] = replace(requests[5], same_prompt=True)
    with pytest.raises(ValueError, match="it is another"):
        make_engine(model, paged=True).generate(requests, MAXIMUM)


def test_a_page_is_free_when_the_last_gives_it_back():
    pool = PagePool(3)
    pages = pool.take(2)
    pool.share(pages[:1])
    pool.give_back(pages)
    assert pool.take(3) is None
    assert pool.users(pages[0]) == 1
    pool.give_back(pages[:1])
    assert sorted(pool.take(3)) == [0, 1, 2]


@pytest.mark.parametrize("together", [1, 4])
def test_seed_documents_take_turns_and_no_draw_is_asked_for_twice(together):
    count = 3 * 20 * together + 2
    documents, draws_of = locate_requests(np.arange(count), 20, seed=5, together=together)
    assert len(set(zip(documents.tolist(), draws_of.tolist(), strict=True))) == count
    used = np.bincount(documents, minlength=20)
    assert used.max() - used.min() <= together
    assert (np.diff(documents[: 20 * together].reshape(20, together)) == 0).all()


def test_the_order_of_single_draws_is_what_it_was():
    documents, draws_of = locate_requests(np.arange(8), 20, seed=5)
    assert draws_of.tolist() == [0] * 8
    assert documents.tolist() == [6, 4, 5, 16, 9, 0, 1, 18]


def test_a_corpus_of_shared_prompts_counts_what_was_computed(model, tmp_path, monkeypatch):
    """The same documents with and without sharing, and the same counts from where a run went on."""
    seeds = open_seeds(tmp_path)
    config = CONFIG.model_copy(update={"draws_together": 5})

    def corpus(name: str, **settings):
        monkeypatch.setattr(provenance, "Engine", functools.partial(Engine, **settings))
        return run(tmp_path / name, model, seeds, config=config)

    whole, shared = corpus("whole", paged=True, share_prompts=False), corpus("shared", paged=True)
    tables = [pq.read_table(result.provenance_path) for result in (whole, shared)]
    assert tables[0].drop_columns("shared_tokens").equals(tables[1].drop_columns("shared_tokens"))
    assert whole.shared_tokens == 0 < shared.shared_tokens
    assert shared.prefill_tokens + shared.shared_tokens == whole.prefill_tokens
    # Of five draws one reads; the last token of a prompt is fed to each.
    rows = tables[1].to_pylist()
    assert [row["shared_tokens"] for row in rows[:5]] == [0] + 4 * [rows[0]["prompt_tokens"] - 1]
    # A run that went on behind its first shard counts the same.
    (tmp_path / "shared" / "synthesis.json").unlink()
    for path in (tmp_path / "shared" / "shards" / "shard-000001").iterdir():
        path.unlink()
    assert corpus("shared", paged=True) == shared
