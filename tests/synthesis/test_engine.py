import itertools

import numpy as np
import pytest
import torch
from synthesis_world import (
    CONTEXT,
    EOS,
    make_engine,
    make_requests,
    same,
    tiny_model,
    token_of_bits,
)

from megasbp.errors import InputError
from megasbp.kernels.sample import sample
from megasbp.parallel.runtime import computes_bfloat16
from megasbp.synthesis import engine as engine_module
from megasbp.synthesis import engine_sizes
from megasbp.synthesis.exchange import Request

MAXIMUM = 24


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def expected(model):
    """Forty documents, written together."""
    return make_engine(model).generate(make_requests(40), MAXIMUM)


def full_forward_logits(model, tokens: np.ndarray) -> torch.Tensor:
    """Logits of the next token from a whole forward pass, without any cache."""
    row = torch.tensor(tokens)[None]
    return model(row, torch.arange(len(tokens))[None])[:, -1]


def test_documents_are_varied_enough_for_the_tests_below(expected):
    assert {completion.finish_reason for completion in expected} == {"eos", "length"}
    assert len({completion.tokens.tobytes() for completion in expected}) > 35
    assert len({len(completion.tokens) for completion in expected}) > 5


def test_a_document_does_not_depend_on_the_order_of_the_requests(model, expected):
    order = np.random.default_rng(0).permutation(40)
    permuted = make_engine(model).generate([make_requests(40)[i] for i in order], MAXIMUM)
    assert same(permuted, [expected[i] for i in order])


def test_a_document_does_not_depend_on_its_neighbours(model, expected):
    engine = make_engine(model)
    alone = [engine.generate([request], MAXIMUM)[0] for request in make_requests(40)[:20]]
    assert same(alone, expected[:20])


def test_a_document_does_not_depend_on_its_slot(model, expected):
    engine = make_engine(model)
    request = make_requests(40)[11]
    others = make_requests(47)[40:]
    for slot in range(8):
        group = [*others[:slot], request, *others[slot:]]
        assert same([engine.generate(group, MAXIMUM)[slot]], [expected[11]])


def test_bfloat16_is_refused_where_it_is_emulated(monkeypatch):
    model = tiny_model()
    model.compute_dtype = torch.bfloat16
    monkeypatch.setattr(engine_sizes, "computes_bfloat16", lambda device: False)
    with pytest.raises(InputError, match="cpu emulates bfloat16, .*; synthesise in float32"):
        make_engine(model)


needs_bfloat16 = pytest.mark.skipif(
    not computes_bfloat16("cpu"), reason="this CPU emulates bfloat16 (needed: AVX512-BF16), which is refused"
)


@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.bfloat16, marks=needs_bfloat16)])
def test_not_one_bit_of_the_logits_depends_on_order_slot_and_neighbours(dtype, monkeypatch):
    monkeypatch.setattr(engine_module, "sample", token_of_bits)
    model = tiny_model()
    model.compute_dtype = dtype
    engine = make_engine(model)
    requests = make_requests(24)
    together = engine.generate(requests, MAXIMUM)
    assert same(engine.generate(requests[::-1], MAXIMUM), together[::-1])
    assert same([engine.generate([request], MAXIMUM)[0] for request in requests[:6]], together[:6])


def test_requests_may_be_split_over_engines(model, expected):
    requests = make_requests(40)
    parts = [make_engine(model).generate(requests[part::3], MAXIMUM) for part in range(3)]
    assert all(same(parts[part], expected[part::3]) for part in range(3))


def test_an_abandoned_stream_leaves_nothing_behind(model, expected):
    engine = make_engine(model)
    endless = itertools.cycle(make_requests(47)[40:])
    stream = engine.stream(endless, MAXIMUM)
    for _ in range(20):
        next(stream)
    stream.close()
    assert same(engine.generate(make_requests(40), MAXIMUM), expected)


def test_each_token_is_the_addressed_draw_from_the_model_without_a_cache(model, expected):
    for request, completion in zip(make_requests(40)[:8], expected[:8], strict=True):
        text = request.prompt
        drawn = [*completion.tokens, EOS][: len(completion.tokens) + (completion.finish_reason == "eos")]
        for position, token in enumerate(drawn):
            address = torch.tensor([[request.seed_document, request.draw, position]])
            logits = full_forward_logits(model, text)
            assert sample(logits, 1.0, 0.95, 2**64 - 5, address).item() == token
            text = np.append(text, token)


def test_draws_of_one_seed_document_differ(model):
    prompt = make_requests(1)[0].prompt
    documents = make_engine(model).generate([Request(3, draw, prompt) for draw in range(6)], MAXIMUM)
    assert len({document.tokens.tobytes() for document in documents}) == 6


def test_temperature_zero_takes_the_most_probable_token(model):
    engine = make_engine(model, temperature=0.0)
    requests = make_requests(6)
    for request, completion in zip(requests, engine.generate(requests, MAXIMUM), strict=True):
        text = request.prompt
        for token in completion.tokens:
            assert full_forward_logits(model, text).argmax().item() == token
            text = np.append(text, token)


def test_the_stop_token_ends_a_document_and_is_not_part_of_it(expected):
    for completion in expected:
        assert EOS not in completion.tokens
        assert (len(completion.tokens) == MAXIMUM) == (completion.finish_reason == "length")


def test_the_context_ends_a_document_too(model):
    engine = make_engine(model, stop_token=-1)
    (completion,) = engine.generate([Request(0, 0, np.full(50, 9))], maximum_tokens=40)
    assert (len(completion.tokens), completion.finish_reason) == (CONTEXT - 50, "length")


def test_the_model_is_only_called_at_two_shapes(model, monkeypatch):
    shapes = set()
    decode = model.decode

    def recording(tokens, *rest):
        shapes.add(tuple(tokens.shape))
        return decode(tokens, *rest)

    monkeypatch.setattr(model, "decode", recording)
    make_engine(model).generate(make_requests(21), MAXIMUM)
    assert shapes == {(8, 1), (3, 8)}


def test_slots_are_kept_busy(model, monkeypatch):
    steps = []
    decode = model.decode

    def recording(tokens, positions, cache, slots, valid):
        if tokens.shape[1] == 1:
            steps.append(int(valid.sum()))
        return decode(tokens, positions, cache, slots, valid)

    monkeypatch.setattr(model, "decode", recording)
    completions = make_engine(model).generate(make_requests(120), MAXIMUM)
    drawn = sum(len(one.tokens) + (one.finish_reason == "eos") for one in completions)
    assert sum(steps) == drawn
    # At most two of eight slots wait for the third that fills a prefill step; at the end they run out alone.
    assert np.mean(steps[:-MAXIMUM]) >= 6


def test_progress_counts_documents_and_drawn_tokens(model):
    seen = []
    completions = make_engine(model).generate(make_requests(10), MAXIMUM, lambda *state: seen.append(state))
    drawn = sum(len(one.tokens) + (one.finish_reason == "eos") for one in completions)
    assert [documents for documents, _ in seen] == list(range(1, 11))
    assert seen[-1] == (10, drawn)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"prefill_chunk": 12}, "prefill_chunk is 12; allowed: divisors of the context 64, such as 8|16"),
        ({"prefill_slots": 9}, r"prefill_slots is 9; allowed: 1 to slots \(8\)"),
        ({"capacity": 128}, r"context is 128; allowed: up to model.maximum_positions \(64\)"),
    ],
)
def test_sizes_that_do_not_agree_are_refused(model, changed, message):
    with pytest.raises(InputError, match=message):
        make_engine(model, **changed)


@pytest.mark.parametrize("length", [0, CONTEXT])
def test_a_prompt_without_room_for_an_answer_is_refused(model, length):
    with pytest.raises(InputError, match=f"has {length} tokens; allowed: 1 to 63"):
        make_engine(model).generate([Request(0, 0, np.full(length, 5))], MAXIMUM)


def test_no_requests_give_no_documents(model):
    assert make_engine(model).generate([], MAXIMUM) == []
