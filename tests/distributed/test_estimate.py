"""Estimates of a layout against what the real code does: on 4 ranks, one launch, and in this process."""

import gc
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from estimate_cases import (
    DTYPES,
    LOGITS,
    PEAKS_OF_PIPELINES,
    PIPELINES,
    RANKS,
    attend,
    compute_as_a_gpu,
    peak_sizes,
    traced_peak,
)
from launch import launch
from routes import send_all
from torch.utils.flop_counter import FlopCounterMode
from traced_memory import TracedMemory
from training_world import MODES, model_config

from megasbp.kernels import cpu, linear_cross_entropy, products
from megasbp.model.flops import flops_per_token
from megasbp.model.init import initialize
from megasbp.model.transformer import Transformer
from megasbp.parallel import context, recompute
from megasbp.parallel.config import ParallelConfig
from megasbp.parallel.estimate.activations import block_kept
from megasbp.parallel.estimate.memory import peak_memory
from megasbp.parallel.estimate.sizes import Sizes
from megasbp.parallel.recompute import Mode, checkpoint_activations
from megasbp.parallel.runtime import Runtime

# The launch, beside other tests.
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each rank has found."""
    return facts_of("estimate_cases.py", tmp_path_factory.mktemp("estimate"))


def facts_of(script: str, folder: Path) -> list[dict[str, Any]]:
    launch(script, folder, seconds=580)
    return [json.loads((folder / f"facts-{rank}.json").read_text()) for rank in range(RANKS)]


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels as on a GPU, put back afterwards."""
    monkeypatch.setattr(cpu, "cpp", cpu.cpp)
    monkeypatch.setattr(linear_cross_entropy, "CPU_LOGITS", linear_cross_entropy.CPU_LOGITS)
    for name in ("wide_product", "add_wide_product"):
        monkeypatch.setattr(products, name, getattr(products, name))
    monkeypatch.setattr(recompute, "_KEPT", list(recompute._KEPT))
    monkeypatch.setattr(context, "attention_at", context.attention_at)
    compute_as_a_gpu()


def test_parameters_and_every_collective_of_a_step_are_exact_at_every_layout(
    launched: list[dict[str, Any]],
) -> None:
    for rank, steps in enumerate(facts["steps"] for facts in launched):
        assert len(steps) == 4 * 4 + 5 * 2 + 2 * len(PIPELINES)
        for name, step in steps.items():
            # The first rank of an axis holds the most: the last ones may lack rows.
            if rank > 0:
                step["estimated"]["parameters"] = step["found"]["parameters"] = 0
            assert step["estimated"] == step["found"], (rank, name)


def test_the_fullest_moment_on_four_ranks_is_within_three_percent(launched: list[dict[str, Any]]) -> None:
    for rank, facts in enumerate(launched):
        for name, (estimated, buffers, found) in facts["peaks"].items():
            # Buffers that may be on their way are counted; none, some or all of them are.
            assert estimated > 0.97 * found, (rank, name, estimated, buffers, found)
            assert estimated - buffers < 1.03 * found, (rank, name, estimated, buffers, found)
            # 12.9% at full checkpointing, where the buffers are a quarter of what is found.
            assert estimated < 1.14 * found, (rank, name, estimated, buffers, found)


@pytest.mark.slow
def test_the_fullest_moment_of_a_pipeline_is_within_three_percent(tmp_path: Path) -> None:
    for rank, peaks in enumerate(facts_of("pipeline_memory_cases.py", tmp_path)):
        assert len(peaks) == len(PEAKS_OF_PIPELINES)
        for name, (estimated, _, found) in peaks.items():
            assert estimated == pytest.approx(found, rel=0.03), (rank, name)


@pytest.mark.parametrize("qk_norm", [True, False])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("element", [4, 2])
def test_what_a_block_keeps_is_exact(
    plain: None, monkeypatch: pytest.MonkeyPatch, mode: Mode, element: int, qk_norm: bool
) -> None:
    # Norms with sums and with rotations are one kernel each on a GPU alone.
    send_all(monkeypatch, "triton")
    alive = {}
    for layers in (2, 3):
        config = model_config(layers=layers, width=48, heads=8, kv_heads=4, feed_forward=80, qk_norm=qk_norm)
        model = Transformer(config)
        initialize(model, 1)
        model.compute_dtype = DTYPES[element]
        for block in model.blocks.values():
            block.attention.attend = attend
        checkpoint_activations(model, mode)
        tokens = torch.zeros(2, 64, dtype=torch.int32)
        with TracedMemory() as memory:
            loss = model(tokens, torch.arange(64).expand(2, -1), None, tokens)
            gc.collect()  # The interpreter leaves circles.
            alive[layers] = memory.alive
        assert loss.requires_grad
    sizes = Sizes.of(
        config, ParallelConfig(), 1,
        sequence_length=64, global_batch=2, micro_batch=2, element=element, checkpointing=mode,
    )  # fmt: skip
    assert block_kept(sizes) == alive[3] - alive[2]


@pytest.mark.parametrize(
    ("mode", "micro_batches", "vocabulary", "element"),
    [*itertools.product(MODES, (1,), (256,), (2, 4)), ("none", 2, 256, 2), ("none", 1, 4096, 2)],
)
def test_the_fullest_moment_of_one_process_is_within_three_percent(
    plain: None, mode: Mode, micro_batches: int, vocabulary: int, element: int
) -> None:
    sizes = peak_sizes(ParallelConfig(), 1, mode, micro_batches, vocabulary, element)
    found = traced_peak(Runtime.start(), sizes)
    assert peak_memory(sizes, LOGITS).total == pytest.approx(found, rel=0.03)


def test_operations_are_those_that_torch_counts(plain: None) -> None:
    config, rows, length = model_config(layers=3, width=48, heads=8, kv_heads=8), 2, 64
    model = Transformer(config)
    initialize(model, 1)
    for block in model.blocks.values():
        block.attention.attend = written_out
    tokens = torch.zeros(rows, length, dtype=torch.int32)
    with FlopCounterMode(display=False) as counter:
        model(tokens, torch.arange(length).expand(rows, -1), None, tokens).backward()
    assert counter.get_total_flops() == rows * length * flops_per_token(config, length, causal=False)


def written_out(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, segments: object) -> torch.Tensor:
    """Attention whose products torch counts; the mask is none of them."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return ((q @ k.mT).softmax(-1) @ v).transpose(1, 2)
