"""The promise on which reproducible synthesis stands: a row's bits do not depend on its company or its place.

It holds on the CPU at fixed threads and fixed (N, T, capacity) when N * T is a multiple of 8: on two
threads, fp32 matrix products of 5 to 7 and 9 to 11 rows broke it, no other number tried up to 264 did. The
kernels do their part: see the comments in kernels/decode_attention.py and kernels/swiglu.py.
"""

from dataclasses import dataclass

import pytest
import torch
from model_world import random_tokens, small_config

from megasbp.kernels.sample import sample
from megasbp.model.init import initialize
from megasbp.model.transformer import KeyValueCache, Transformer

STEPS = 8


@pytest.fixture(params=[1, 2, 3], ids=lambda threads: f"{threads} threads")
def _threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


@dataclass
class Rows:
    """N documents being written: tokens to come, how far they are, and what the cache holds of them."""

    tokens: torch.Tensor  # [N, STEPS]
    start: torch.Tensor  # [N]
    memory: torch.Tensor  # [N, layers, 2, K, C, E]; beyond `start` the leftovers of older documents

    @staticmethod
    def random(model: Transformer, count: int, capacity: int, seed: int) -> "Rows":
        config, generator = model.config, torch.Generator().manual_seed(seed)
        shape = (count, config.layers, 2, config.kv_heads, capacity, config.head_dim)
        return Rows(
            random_tokens(count, STEPS, config.vocabulary_size, seed),
            torch.randint(capacity - STEPS, (count,), generator=generator),
            torch.randn(shape, generator=generator),
        )

    def with_rows(self, places: torch.Tensor, other: "Rows", rows: torch.Tensor) -> "Rows":
        """These documents, but at `places` those that `other` has at `rows`."""
        mixed = Rows(self.tokens.clone(), self.start.clone(), self.memory.clone())
        mixed.tokens[places], mixed.start[places] = other.tokens[rows], other.start[rows]
        mixed.memory[places] = other.memory[rows]
        return mixed


def written(model: Transformer, rows: Rows, slots: torch.Tensor, chunk: int) -> torch.Tensor:
    """States and logits [N, STEPS, D + V], `chunk` tokens of every row at a time."""
    count, layers, _, kv_heads, capacity, _ = rows.memory.shape
    cache = KeyValueCache(model.config, count, capacity, model.compute_dtype)
    for layer in range(layers):
        for half, memory in enumerate((cache._keys, cache._values)):
            memory[layer, :-1].view(count, kv_heads, capacity, -1)[slots] = rows.memory[:, layer, half].to(
                memory.dtype
            )
    results = []
    for step in range(0, STEPS, chunk):
        tokens = rows.tokens[:, step : step + chunk]
        positions = rows.start[:, None] + torch.arange(step, step + chunk)
        states = model.decode(tokens, positions, cache, slots, torch.ones_like(tokens, dtype=torch.bool))
        results.append(torch.cat((states.float(), model.logits(states)), -1))
    return torch.cat(results, 1)


def model_of(dtype: torch.dtype, **shape: int) -> Transformer:
    model = Transformer(small_config(layers=2, maximum_positions=512, **shape)).eval()
    initialize(model, 3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4 if parameter.dim() == 2 else 1)
    model.compute_dtype = dtype
    return model


SHAPES = [
    # The demo's, two query heads a key-value head; then one; then three, an odd capacity and a small head.
    (dict(vocabulary_size=512, width=128, heads=4, kv_heads=2, head_dim=32, feed_forward=352), 128),
    (dict(vocabulary_size=500, width=160, heads=5, kv_heads=5, head_dim=32, feed_forward=448), 64),
    (dict(vocabulary_size=97, width=48, heads=6, kv_heads=2, head_dim=8, feed_forward=101), 33),
]


@pytest.mark.usefixtures("_threads")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("count", [8, 16, 64])
@pytest.mark.parametrize(("shape", "capacity"), SHAPES)
@pytest.mark.parametrize("chunk", [1, STEPS])
def test_bits_depend_neither_on_company_nor_on_place_nor_on_slot(shape, capacity, count, dtype, chunk):
    model = model_of(dtype, **shape)
    rows = Rows.random(model, count, capacity, seed=1)
    expected = written(model, rows, torch.arange(count), chunk)
    generator = torch.Generator().manual_seed(count)
    for trial in range(3):
        kept = torch.randperm(count, generator=generator)[: count // 2]
        places = torch.randperm(count, generator=generator)[: count // 2]
        slots = torch.randperm(count, generator=generator) if trial else torch.arange(count)
        company = Rows.random(model, count, capacity, seed=100 + trial)
        found = written(model, company.with_rows(places, rows, kept), slots, chunk)
        assert torch.equal(found[places], expected[kept])


@pytest.mark.usefixtures("_threads")
def test_many_rows_keep_their_bits_and_their_tokens():
    """So many that elementwise operations are split over threads at odd places."""
    # 272 x 352 elements do not part into three equal whole vectors.
    model, count = model_of(torch.float32, **SHAPES[0][0]), 272
    rows, everywhere = Rows.random(model, count, 32, seed=1), torch.arange(count)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    expected = written(model, rows, everywhere, chunk=1)
    found = written(model, rows.with_rows(everywhere, rows, order), everywhere, chunk=1)
    assert torch.equal(found, expected[order])
    address = torch.stack([everywhere] * 3, 1)
    logits = expected[:, -1, model.config.width :]
    tokens = sample(logits, 1.0, 0.9, 5, address)
    assert torch.equal(sample(logits[order], 1.0, 0.9, 5, address[order]), tokens[order])


@pytest.mark.usefixtures("_threads")
def test_padding_lanes_and_fewer_rows_than_slots_change_no_bit():
    model = model_of(torch.float32, **SHAPES[0][0])
    tokens = random_tokens(8, STEPS, 512)
    positions = torch.arange(STEPS).expand(8, STEPS)
    everything = torch.ones(8, STEPS, dtype=torch.bool)

    def states(slots: int, places: list[int], valid: torch.Tensor) -> torch.Tensor:
        cache = KeyValueCache(model.config, slots, 64)
        return model.decode(tokens, positions, cache, torch.tensor(places), valid)

    expected = states(8, list(range(8)), everything)
    assert torch.equal(states(20, [3, 19, 0, 7, 5, 11, 2, 4], everything), expected)
    partly = everything.clone()
    partly[4:] = False
    assert torch.equal(states(8, list(range(8)), partly)[:4], expected[:4])
