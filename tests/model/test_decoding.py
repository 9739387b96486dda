import pytest
import torch
from model_world import counting_positions, random_tokens, small_model

from megasbp.model.cache import KeyValueCache
from megasbp.model.transformer import Transformer

CAPACITY = 64


def new_cache(model: Transformer, slots: int, junk: bool = True) -> KeyValueCache:
    """A cache that still holds what earlier documents left."""
    cache = KeyValueCache(model.config, slots, CAPACITY, model.compute_dtype)
    if junk:
        cache._keys.normal_(generator=torch.Generator().manual_seed(0))
        cache._values.normal_(generator=torch.Generator().manual_seed(1))
    return cache


@pytest.mark.parametrize(
    "model_changes", [{}, {"qk_norm": False, "kv_heads": 6}, {"kv_heads": 1, "head_dim": 6}]
)
# fp32: sums in another order. bf16: roundings of 2**-8 along three layers, relative to states of size one.
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-5), (torch.bfloat16, 0.06)])
@pytest.mark.parametrize("chunk", [1, 5, 40])
def test_reading_in_chunks_gives_the_states_of_the_whole_forward_pass(model_changes, dtype, tolerance, chunk):
    model = small_model(**model_changes)
    model.compute_dtype = dtype
    tokens, positions = random_tokens(3, 40), counting_positions(3, 40)
    slots = torch.tensor([4, 0, 2])
    cache = new_cache(model, 5)
    parts = [
        model.decode(part, place, cache, slots, torch.ones_like(part, dtype=torch.bool))
        for part, place in zip(tokens.split(chunk, 1), positions.split(chunk, 1), strict=True)
    ]
    expected = model.hidden(tokens, positions)
    found = torch.cat(parts, 1)
    assert found.dtype == dtype
    assert (found.float() - expected.float()).square().mean().sqrt() <= tolerance


def test_rows_at_different_positions_and_padded_lanes_do_not_disturb_each_other():
    model = small_model()
    lengths = [7, 31, 1, 20]
    documents = [random_tokens(1, length, seed=length) for length in lengths]
    expected = [model.hidden(document, counting_positions(1, document.shape[1]))[0] for document in documents]
    cache = new_cache(model, 6)
    chunk, slots = 8, torch.tensor([3, 5, 0, 2])
    found: list[list[torch.Tensor]] = [[], [], [], []]
    for start in range(0, max(lengths), chunk):
        tokens = torch.zeros(4, chunk, dtype=torch.int64)
        valid = torch.zeros(4, chunk, dtype=torch.bool)
        for row, document in enumerate(documents):
            part = document[0, start : start + chunk]
            tokens[row, : len(part)], valid[row, : len(part)] = part, True
        positions = counting_positions(4, chunk) + start
        states = model.decode(tokens, positions, cache, slots, valid)
        for row in range(4):
            found[row].append(states[row][valid[row]])
    for row in range(4):
        torch.testing.assert_close(torch.cat(found[row]), expected[row], rtol=0, atol=2e-5)


def test_what_is_not_valid_is_not_written():
    model = small_model()
    cache = new_cache(model, 3)
    keys, values = cache._keys[:, :-1].clone(), cache._values[:, :-1].clone()
    tokens = random_tokens(3, 4)
    model.decode(
        tokens, counting_positions(3, 4), cache, torch.arange(3), torch.zeros(3, 4, dtype=torch.bool)
    )
    assert torch.equal(cache._keys[:, :-1], keys)
    assert torch.equal(cache._values[:, :-1], values)


def test_a_new_cache_is_finite_and_knows_its_size():
    model = small_model()
    cache = new_cache(model, 2, junk=False)
    valid = torch.tensor([[True], [False]])
    states = model.decode(
        random_tokens(2, 1), torch.zeros(2, 1, dtype=torch.int64), cache, torch.arange(2), valid
    )
    assert states.isfinite().all()
    # layers x (slots x kv heads x capacity + 1) x head dimension, keys and values, fp32
    assert cache.nbytes == 3 * (2 * 2 * CAPACITY + 1) * 16 * 2 * 4


@pytest.mark.parametrize(
    ("slot", "position", "message"),
    [
        (3, 0, "slot 3 .* 0 to 2"),
        (-1, 0, "slot -1"),
        (0, CAPACITY, f"position {CAPACITY} .* 0 to {CAPACITY - 1}"),
        (0, -1, "position -1"),
    ],
)
def test_places_outside_the_cache_are_refused(slot, position, message):
    model = small_model()
    one = torch.tensor([[5]])
    with pytest.raises(ValueError, match=message):
        model.decode(one, torch.tensor([[position]]), new_cache(model, 3), torch.tensor([slot]), one > 0)


def test_an_empty_cache_is_refused():
    with pytest.raises(ValueError, match="slots is 0"):
        KeyValueCache(small_model().config, 0, 8)
