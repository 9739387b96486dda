"""Every case of test_row_independence.py at one number of threads, given as the argument.

Prints the cases that fail; exits with 1 when there are any. A process of its own, so that idle threads can be
told to sleep before torch is loaded: spinning ones make these tests minutes long on a busy machine.
"""

import itertools
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from model_world import random_tokens, small_config

from megasbp.kernels.sample import sample
from megasbp.model.cache import KeyValueCache
from megasbp.model.init import initialize
from megasbp.model.transformer import Transformer
from megasbp.parallel.runtime import computes_bfloat16

STEPS = 8
SHAPES = [
    # The demo's, two query heads a key-value head; then one; then three, an odd capacity and a small head.
    (dict(vocabulary_size=512, width=128, heads=4, kv_heads=2, head_dim=32, feed_forward=352), 128),
    (dict(vocabulary_size=500, width=160, heads=5, kv_heads=5, head_dim=32, feed_forward=448), 64),
    (dict(vocabulary_size=97, width=48, heads=6, kv_heads=2, head_dim=8, feed_forward=101), 33),
]


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


def company_place_and_slot(capacity: int, count: int, chunk: int, model: Transformer) -> bool:
    """Half of the rows, moved among new neighbours and to other slots, keep their bits."""
    rows = Rows.random(model, count, capacity, seed=1)
    expected = written(model, rows, torch.arange(count), chunk)
    generator = torch.Generator().manual_seed(count)
    equal = True
    for trial in range(2):
        kept = torch.randperm(count, generator=generator)[: count // 2]
        places = torch.randperm(count, generator=generator)[: count // 2]
        slots = torch.randperm(count, generator=generator) if trial else torch.arange(count)
        company = Rows.random(model, count, capacity, seed=100 + trial)
        found = written(model, company.with_rows(places, rows, kept), slots, chunk)
        equal &= torch.equal(found[places], expected[kept])
    return equal


def many_rows() -> bool:
    """272 x 352 elements, which do not part into three equal whole vectors; their sampled tokens too."""
    model, count = model_of(torch.float32, **SHAPES[0][0]), 272
    rows, everywhere = Rows.random(model, count, 32, seed=1), torch.arange(count)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    expected = written(model, rows, everywhere, chunk=1)
    found = written(model, rows.with_rows(everywhere, rows, order), everywhere, chunk=1)
    address = torch.stack([everywhere] * 3, 1)
    logits = expected[:, -1, model.config.width :]
    tokens = sample(logits, 1.0, 0.9, 5, address)
    return torch.equal(found, expected[order]) and torch.equal(
        sample(logits[order], 1.0, 0.9, 5, address[order]), tokens[order]
    )


def padding_and_more_slots_than_rows() -> bool:
    """Padding lanes, and slots that no row uses, change nothing."""
    model = model_of(torch.float32, **SHAPES[0][0])
    tokens, positions = random_tokens(8, STEPS, 512), torch.arange(STEPS).expand(8, STEPS)
    everything = torch.ones(8, STEPS, dtype=torch.bool)

    def states(slots: int, places: list[int], valid: torch.Tensor) -> torch.Tensor:
        return model.decode(
            tokens, positions, KeyValueCache(model.config, slots, 64), torch.tensor(places), valid
        )

    expected = states(8, list(range(8)), everything)
    partly = everything.clone()
    partly[4:] = False
    return torch.equal(states(20, [3, 19, 0, 7, 5, 11, 2, 4], everything), expected) and torch.equal(
        states(8, list(range(8)), partly)[:4], expected[:4]
    )


def failures() -> Iterator[str]:
    """The names of the cases that fail."""
    # Where bfloat16 is emulated the promise does not hold, and the engine refuses it.
    dtypes = (torch.float32, torch.bfloat16) if computes_bfloat16("cpu") else (torch.float32,)
    for (shape, capacity), dtype in itertools.product(SHAPES, dtypes):
        model = model_of(dtype, **shape)
        for count, chunk in itertools.product((8, 16, 64), (1, STEPS)):
            if not company_place_and_slot(capacity, count, chunk, model):
                yield f"{shape} capacity {capacity} {dtype}: {count} rows, {chunk} tokens at a time"
    if not many_rows():
        yield "many rows"
    if not padding_and_more_slots_than_rows():
        yield "padding, or more slots than rows"


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[1]))
    failed = list(failures())
    print("\n".join(failed))
    sys.exit(bool(failed))
