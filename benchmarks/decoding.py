"""Decode steps of our engine on a GPU, all slots full, beside the serial roofline.

The roofline reads weights and cache once, at the rate of a copy, and then multiplies, at the rate of a large
product. Weights of the embedding count only where they are the output layer's too.
"""

import gc
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.kernel_timing import copy_rate, product_rate
from benchmarks.measuring import Measure, Side
from benchmarks.training_profile import kind
from megasbp.model.config import ModelConfig
from megasbp.model.flops import parameter_count
from megasbp.model.transformer import Transformer
from megasbp.synthesis.engine import Engine
from megasbp.synthesis.exchange import Request

TARGET_SHARE = 0.8
_CHUNK = 256
# The last prompts are read when the first slot becomes free, after the first step.
_FIRST_STEPS, _WINDOWS, _WINDOW_STEPS, _PROFILED_STEPS = 4, 3, 32, 8
_SHOWN_KERNELS = 16
_ONCE_A_STEP = "sample_race"
_GIBIBYTE = 2**30


class Roofline:
    """Tokens a second that a device allows, by its own copy and product.

    Args:
        device: on which both are measured.
    """

    def __init__(self, model: ModelConfig, device: torch.device) -> None:
        self._model = model
        self._weights = parameter_count(model) - (0 if model.tied else model.vocabulary_size * model.width)
        self._copied, self._multiplied = copy_rate(device.type), product_rate(device.type)

    def __call__(self, rows: float, context: float) -> float:
        """Of steps that feed a token to each of `rows` documents that have so many tokens, in bf16."""
        model = self._model
        cache = model.layers * 2 * model.kv_heads * model.head_dim * context * rows
        operations = 2 * self._weights * rows + 2 * cache * (model.heads // model.kv_heads)
        return rows / (2 * (self._weights + cache) / self._copied + operations / self._multiplied)


def decoding(
    model: Transformer, roofline: Roofline, rows: int, context: int, ways: Mapping[str, Mapping[str, Any]]
) -> Measure:
    """Tokens a second while `rows` documents have `context` tokens each, in the mean of the steps.

    Args:
        model: on a GPU; of any weights.
        ways: name of a side -> settings of its engine; the first is compared.
    """
    sides = {}
    for name, settings in ways.items():
        try:
            sides[name] = _side(model, rows, context, settings)
        except torch.OutOfMemoryError:
            sides[name] = Side(missing="out of memory")
        gc.collect()
        torch.cuda.empty_cache()
    limit = roofline(rows, context)
    for side in sides.values():
        if side.values:
            side.facts |= {"roofline": limit, "share": side.median / limit}
    name = f"decoding, {rows} documents of {context} tokens"
    return Measure(name, "tokens/s", True, sides, target_limit=TARGET_SHARE * limit)


def _side(model: Transformer, rows: int, context: int, settings: Mapping[str, Any]) -> Side:
    """Of an engine of its own. Documents that end early mark when a window of steps begins and ends."""
    steps = _FIRST_STEPS + _WINDOWS * _WINDOW_STEPS + _PROFILED_STEPS
    length = context - steps // 2
    capacity = -(-(length + steps) // _CHUNK) * _CHUNK
    engine = Engine(
        model,
        slots=rows,
        capacity=capacity,
        prefill_chunk=_CHUNK,
        prefill_slots=min(rows, 8),
        stop_token=-1,  # None: every document has the limit's length.
        temperature=1.0,
        top_p=1.0,
        key=0,
        cache_tokens=rows * (length + steps + 64) + capacity,
        **settings,
    )
    random = np.random.default_rng(0)
    ends = [1, *(_FIRST_STEPS + window * _WINDOW_STEPS for window in range(_WINDOWS + 1))]
    # A document that has no room for more than so many tokens ends with that step.
    lengths = [*(capacity - end for end in ends), *[length] * (rows - len(ends))]
    requests = [
        Request(number, 0, random.integers(2, model.config.vocabulary_size, size))
        for number, size in enumerate(lengths)
    ]
    # Kernels are compiled, and the graph is captured.
    engine.generate([Request(one.seed_document, 0, one.prompt[:2]) for one in requests], 2)
    torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    stream = engine.stream(requests, steps)
    first, *ended = [_next_end(stream) for _ in ends]
    with profile(activities=[ProfilerActivity.CUDA]) as recorded:
        for _ in stream:
            pass
        torch.cuda.synchronize()
    rates = [
        (rows - 2 - window) * _WINDOW_STEPS / (ended[window + 1] - ended[window])
        for window in range(_WINDOWS)
    ]
    return Side(
        rates,
        facts={
            "prefill_tokens_per_second": sum(lengths) / (first - start),
            "memory_gib": torch.cuda.max_memory_allocated() / _GIBIBYTE,
            **_profiled(recorded),
        },
    )


def _next_end(stream: Iterator[Any]) -> float:
    next(stream)
    return time.perf_counter()


def _profiled(recorded: Any) -> dict[str, Any]:
    """Milliseconds of a step on the device: by kind, and the kernels that take most of them.

    A step draws once; how many steps the profile holds depends on when the last prompts were read.
    """
    steps = sum(event.count for event in recorded.key_averages() if _ONCE_A_STEP in event.key)
    assert steps > 0, f"the profile has no {_ONCE_A_STEP}"
    kinds: dict[str, float] = defaultdict(float)
    kernels = []
    for event in recorded.key_averages():
        milliseconds = event.self_device_time_total / 1e3 / steps
        kinds[kind(event.key)] += milliseconds
        kernels.append((round(milliseconds, 4), round(event.count / steps, 1), event.key[:70]))
    shown = sorted(kernels, reverse=True)[:_SHOWN_KERNELS]
    return {"milliseconds": {name: round(value, 4) for name, value in kinds.items()}, "kernels": shown}
