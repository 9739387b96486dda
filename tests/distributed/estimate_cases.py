"""The layouts whose estimates test_estimate.py compares with what 4 ranks do, one launch.

Usage: python estimate_cases.py FOLDER
"""

import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from launch import fork_ranks
from layouts import layout_name
from steps import GLOBAL_BATCH, Layouts, rows_of_step
from torch.nn import functional
from torch.utils._python_dispatch import _disable_current_modes
from traced_collectives import TracedCollectives
from traced_memory import TracedMemory
from training_world import SEQUENCE, RaggedSource, initial_model, model_config, training_config

from megasbp.data.batch import Batch
from megasbp.kernels import cpu, linear_cross_entropy, products
from megasbp.model.config import ModelConfig
from megasbp.model.transformer import Block
from megasbp.parallel import context, recompute
from megasbp.parallel.config import ParallelConfig
from megasbp.parallel.context import ContextAttention
from megasbp.parallel.estimate.communication import collectives
from megasbp.parallel.estimate.memory import peak_memory
from megasbp.parallel.estimate.parameters import rank_parameters
from megasbp.parallel.estimate.sizes import Sizes
from megasbp.parallel.recompute import Mode
from megasbp.parallel.runtime import Runtime
from megasbp.parallel.shards import local_tensor
from megasbp.training.gradients import accumulate_gradients
from megasbp.training.optimizer import build_optimizer, optimizer_step

RANKS = 4
# replicate, context, tensor; the rest shards
LAYOUTS = (
    (1, 1, 1), (2, 1, 1), (4, 1, 1), (1, 2, 1), (1, 4, 1), (1, 1, 2), (1, 1, 4), (1, 2, 2), (2, 1, 2)
)  # fmt: skip
# At all of STEPS; the others at some.
OFTEN = ((2, 1, 1), (1, 2, 1), (1, 1, 2), (1, 2, 2))
# Checkpointing; tied, with norms of queries; micro-batches; bytes of a number
STEPS = (
    ("none", True, 1, 2),
    ("none", False, 2, 4),
    ("selective", True, 2, 2),
    ("full", False, 1, 2),
)
# Schedule, and ranks of the tensor axis beside a pipeline of what is left of half the ranks.
PIPELINES = (
    ("gpipe", 1),
    ("1f1b", 2),
    ("interleaved_1f1b", 1),
    ("interleaved_zero_bubble", 1),
    ("zbv_zero_bubble", 2),
    ("dualpipe_v", 1),
)
# Layout, checkpointing, micro-batches, vocabulary: of bf16.
PEAKS = (
    (ParallelConfig(), "none", 1, 256),
    (ParallelConfig(), "selective", 1, 256),
    (ParallelConfig(), "full", 1, 256),
    (ParallelConfig(), "none", 2, 4096),
    (ParallelConfig(replicate=2), "none", 1, 256),
    (ParallelConfig(context=2), "none", 1, 256),
    (ParallelConfig(tensor=2), "none", 1, 256),
    (ParallelConfig(tensor=2), "full", 1, 256),
)
# Of the slow test, each of many passes.
PEAKS_OF_PIPELINES = (
    (ParallelConfig(pipeline=2), "none", 6, 256),
    (ParallelConfig(pipeline=2, schedule="gpipe"), "none", 4, 256),
    (ParallelConfig(pipeline=2, tensor=2, schedule="interleaved_1f1b"), "none", 6, 256),
    (ParallelConfig(pipeline=2, schedule="dualpipe_v"), "none", 6, 256),
)
# Of the loss, so few that several chunks are needed.
LOGITS = 2**16
DTYPES = {2: torch.bfloat16, 4: torch.float32}


def compute_as_a_gpu() -> None:
    """Has this process compute as a GPU would: no C++, and attention in its own type, kept as there."""
    cpu.cpp = None
    linear_cross_entropy.CPU_LOGITS = LOGITS
    products.wide_product, products.add_wide_product = wide_product, add_wide_product
    recompute._KEPT.append(torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default)
    context.attention_at = attend_at


def wide_product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """As a GPU's, which copies no operands in fp32."""
    if a.dtype == torch.float32:
        return torch.mm(a, b)
    product = torch.empty(len(a), b.shape[1])
    with _disable_current_modes():
        return torch.mm(a.float(), b.float(), out=product)


def add_wide_product(total: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> None:
    if a.dtype == torch.float32:
        torch.addmm(total, a, b, out=total)
        return
    with _disable_current_modes():
        torch.addmm(total, a.float(), b.float(), out=total)


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, segments: object) -> torch.Tensor:
    heads_first = (x.transpose(1, 2) for x in (q, k, v))
    return functional.scaled_dot_product_attention(*heads_first, is_causal=True, enable_gqa=True).transpose(
        1, 2
    )


def attend_at(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, places: torch.Tensor, *others: object
) -> torch.Tensor:
    """For a part of the queries; which of the keys they see does not matter to what is held."""
    heads_first = (x.transpose(1, 2) for x in (q, k, v))
    return functional.scaled_dot_product_attention(*heads_first, enable_gqa=True).transpose(1, 2)


def peak_config(vocabulary: int, stages: int = 1) -> ModelConfig:
    """So wide that vectors and numbers do not matter."""
    shape = {
        "layers": max(3, 2 * stages),
        "width": 128,
        "heads": 8,
        "kv_heads": 4,
        "head_dim": 16,
        "feed_forward": 320,
    }
    return model_config(**shape, vocabulary_size=vocabulary, tied=False, maximum_positions=256)


def traced_peak(runtime: Runtime, sizes: Sizes) -> int:
    """The most bytes in the second step's forward and backward passes."""
    rows = sizes.micro_batch * sizes.micro_batches
    tokens = torch.zeros(rows, sizes.sequence_length, dtype=torch.int32)
    positions = torch.arange(sizes.sequence_length, dtype=torch.int32).expand(rows, -1)
    batch = Batch(tokens, tokens.clone(), positions, tokens.clone())
    with TracedMemory() as memory:
        model = initial_model(sizes.model, runtime, DTYPES[sizes.element], sizes.checkpointing)
        for block in model.modules():
            if isinstance(block, Block) and not isinstance(block.attention.attend, ContextAttention):
                block.attention.attend = attend
        optimizer = build_optimizer(model, training_config())
        for _ in range(2):
            memory.peak = 0
            nats = accumulate_gradients(model, batch, sizes.micro_batch, 1000, runtime.device)
            peak = memory.peak
            optimizer_step(optimizer, 0.01, nats, 1000, 1.0, runtime)
    return peak


def peak_sizes(
    parallel: ParallelConfig,
    ranks: int,
    mode: Mode,
    micro_batches: int,
    vocabulary: int,
    element: int = 2,
    place: int = 0,
) -> Sizes:
    readers = ranks * parallel.replicate // parallel.unit
    return Sizes.of(
        peak_config(vocabulary, parallel.stages), parallel, ranks, place=place,
        sequence_length=256, global_batch=2 * micro_batches * readers, micro_batch=2,
        element=element, checkpointing=mode,
    )  # fmt: skip


def step(runtime: Runtime, mode: Mode, wide: bool, micro_batches: int, element: int) -> dict[str, object]:
    """Parameters and collectives of one rank in one step, estimated and found."""
    tensor, place = runtime.parallel.tensor, 0
    if runtime.pipeline is not None:
        place = runtime.pipeline.get_local_rank()
    # Of sizes that FSDP2 has to pad, and stages of unequal length.
    layers = max(3, runtime.parallel.stages + 1)
    config = model_config(
        vocabulary_size=70 * tensor,
        layers=layers,
        heads=8,
        kv_heads=4,
        head_dim=6,
        qk_norm=wide,
        tied=wide,
    )
    rows = GLOBAL_BATCH // runtime.data_ranks
    sizes = Sizes.of(
        config, runtime.parallel, RANKS, place=place,
        sequence_length=SEQUENCE, global_batch=GLOBAL_BATCH, micro_batch=rows // micro_batches,
        element=element, checkpointing=mode,
    )  # fmt: skip
    model = initial_model(config, runtime, DTYPES[element], mode)
    batch = rows_of_step(runtime, RaggedSource(1), 0)
    batch.labels.fill_(3)
    accumulate_gradients(model, batch, sizes.micro_batch, 100, runtime.device)  # the first step sets FSDP2 up
    with TracedCollectives(runtime) as traced:
        accumulate_gradients(model, batch, sizes.micro_batch, 100, runtime.device)
    calls: Counter[str] = Counter()
    size: Counter[str] = Counter()
    for one in collectives(sizes):
        calls[f"{traced.canonical(one.axis)} {one.kind}"] += one.calls
        size[f"{traced.canonical(one.axis)} {one.kind}"] += one.bytes
    # A pipeline does not name the copy of a tied table, but holds it.
    parameters = [x for module in model.modules() for x in module._parameters.values() if x is not None]
    held = sum(local_tensor(parameter).numel() for parameter in parameters)
    return {
        "estimated": {"parameters": rank_parameters(sizes), "calls": calls, "bytes": size},
        "found": {"parameters": held, "calls": traced.calls, "bytes": traced.bytes},
    }


def peaks(started: Runtime, cases: Sequence[tuple[ParallelConfig, Mode, int, int]]) -> dict[str, list[int]]:
    """By case: bytes that are estimated, those of them that are buffers on their way, and what was found."""
    compute_as_a_gpu()
    laid_out = Layouts(started)
    measured = {}
    for parallel, mode, micro_batches, vocabulary in cases:
        runtime = laid_out(parallel)
        assert runtime.pipeline is not None
        place = runtime.pipeline.get_local_rank()
        sizes = peak_sizes(parallel, RANKS, mode, micro_batches, vocabulary, place=place)
        found = traced_peak(runtime, sizes)
        estimated = peak_memory(sizes, LOGITS)
        name = f"{layout_name(parallel)} {mode} {micro_batches} {vocabulary}"
        measured[name] = [estimated.total, estimated.buffers, found]
    return measured


def main(folder: Path) -> None:
    started = Runtime.start()
    facts: dict[str, Any] = {"steps": {}}
    runtimes = {
        layout: started.laid_out(ParallelConfig(replicate=layout[0], context=layout[1], tensor=layout[2]))
        for layout in LAYOUTS
    }
    for layout in LAYOUTS:
        for case in STEPS if layout in OFTEN else STEPS[::3]:
            facts["steps"][f"{layout} {case}"] = step(runtimes[layout], *case)
    for schedule, tensor in PIPELINES:
        runtime = started.laid_out(ParallelConfig(pipeline=2, tensor=tensor, schedule=schedule))
        for tied in (True, False):
            facts["steps"][f"{schedule} {tensor} {tied}"] = step(runtime, "none", tied, 4, 2)
    facts["peaks"] = peaks(started, PEAKS)
    (folder / f"facts-{started.rank}.json").write_text(json.dumps(facts))
    started.close()


if __name__ == "__main__":
    fork_ranks(main, RANKS, Path(sys.argv[1]))
