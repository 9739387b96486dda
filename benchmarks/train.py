"""Training steps of a recipe's model on random tokens: tokens/s, MFU, memory, where the time goes.

Alone, or under torchrun with the recipe's layout:

python tools/benchmark.py train configs/sbp_3b_200b.toml training.compile=true
torchrun --nproc-per-node 8 tools/benchmark.py train configs/sbp_3b_200b.toml --rows 64

The trainer's own functions run, without data files and checkpoints. A row is one document; or it is packed
with documents of exponential length. Beside it, on one device, what others use trains the same model (fp32
weights, bf16 products, fused AdamW) on the same rows of one document, each in a process of its own. MFU is of
the datasheet's bf16 rate, in both conventions: attention counted whole ("full"), or its causal half. The
ceiling is what the device's own matrix products, attention and copy would allow.
"""

import argparse
import dataclasses
import gc
import json
import os
from pathlib import Path
from typing import Any

import torch

from benchmarks.measuring import OURS, Measure, Side, fresh_process, not_installed
from benchmarks.training_ceiling import ceiling
from benchmarks.training_profile import time_split
from benchmarks.training_step import StepTimes, TrainingStep, random_batch
from megasbp.experiment.recipe import Recipe, load_recipe
from megasbp.model.flops import parameter_count
from megasbp.parallel.runtime import Runtime
from megasbp.training.utilisation import Utilisation, peak_memory_bytes, peak_tflops

PACKAGES = ("megasbp", "torch", "triton", "transformers", "liger-kernel", "megatron-core")
# Name of the side -> what has to be installed, as module and package.
PEERS = {
    "transformers + liger-kernel": ("liger_kernel", "liger-kernel"),
    "transformers + torch.compile": ("transformers", "transformers"),
    "megatron-core, without Transformer Engine": ("megatron.core", "megatron-core"),
}
_TARGET_TOKENS = 30_000
_TARGET_RATIO = 1.15


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of this subject."""
    parser.add_argument("recipe", type=Path)
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    parser.add_argument("--rows", type=int, help="of a step on each data rank (the recipe's micro-batch)")
    parser.add_argument("--steps", type=int, default=5, help="that are timed (%(default)s)")
    parser.add_argument("--warm-up", type=int, default=3, help="steps before them (%(default)s)")
    parser.add_argument(
        "--document-tokens", type=int, default=800, help="mean length of packed documents (%(default)s)"
    )
    parser.add_argument(
        "--peer-micro-batch", type=int, help="where the others begin (the recipe's); halved until it fits"
    )
    parser.add_argument("--peer-seconds", type=float, help="that each of the others may take (any)")
    parser.add_argument("--no-peers", action="store_true", help="megasbp alone")


def measure(options: argparse.Namespace, folder: Path) -> list[Measure]:
    """Our steps, causal and packed, then the others'."""
    recipe = load_recipe(options.recipe, options.overrides)
    runtime = Runtime.start(recipe.parallel)
    rows = options.rows or recipe.training.micro_batch
    step = TrainingStep(recipe, runtime)
    ours = {
        kind: _ours(step, recipe, runtime, rows, tokens, options)
        for kind, tokens in (("causal", 0), ("packed", options.document_tokens))
    }
    runtime.close()
    # The others need the memory.
    del step
    gc.collect()
    if runtime.device.type == "cuda":
        torch.cuda.empty_cache()
    speed = _measure("tokens/s", True, {OURS: _speed_side(ours["causal"])})
    packed = _measure("tokens/s", True, {OURS: _speed_side(ours["packed"])}, ", packed documents")
    memory = _measure("bytes", False, {OURS: Side([ours["causal"]["memory"]])}, ", memory")
    on_gpu = runtime.device.type == "cuda"
    if on_gpu and runtime.world_size == 1:
        speed.sides[OURS].facts["ceiling"] = ceiling(recipe, rows, runtime.device)
    if on_gpu and recipe.name.startswith("sbp_3b"):
        speed.target_limit = packed.target_limit = _TARGET_TOKENS
    peer_micro_batch = min(rows, options.peer_micro_batch or recipe.training.micro_batch)
    if runtime.world_size == 1 and not options.no_peers:
        for name, (module, package) in PEERS.items():
            missing = not_installed(module.split(".", maxsplit=1)[0], package)
            found = {"missing": missing} if missing else _peer(name, options, rows, peer_micro_batch)
            facts = {"micro_batch": found["micro_batch"]} if "micro_batch" in found else {}
            speed.sides[name] = Side(
                found.get("tokens_per_second", []), found.get("missing", ""), facts=facts
            )
            memory.sides[name] = Side(
                [found["memory"]] if "memory" in found else [], found.get("missing", "")
            )
            if on_gpu:
                speed.target_ratios[name] = _TARGET_RATIO
    return [speed, packed, memory]


def _measure(unit: str, higher: bool, sides: dict[str, Side], of: str = "") -> Measure:
    return Measure(f"training{of}", unit, higher, sides)


def _speed_side(found: dict[str, Any]) -> Side:
    facts = {name: value for name, value in found.items() if name != "tokens_per_second"}
    return Side(found["tokens_per_second"], facts=facts)


def _ours(
    step: TrainingStep,
    recipe: Recipe,
    runtime: Runtime,
    rows: int,
    document_tokens: int,
    options: argparse.Namespace,
) -> dict[str, Any]:
    """Our side, on all ranks: speeds of the steps, and their facts."""
    batch = random_batch(recipe, rows, document_tokens, seed=runtime.data_rank)
    for _ in range(options.warm_up):
        step.run(batch)
    peak_memory_bytes(runtime.device)
    times = [step.run(batch) for _ in range(options.steps)]
    tokens = rows * recipe.training.sequence_length * runtime.data_ranks
    peak = recipe.training.peak_tflops or peak_tflops(runtime.device)
    utilisation = Utilisation(recipe.model, recipe.training.sequence_length, peak, runtime.world_size)
    speeds = [tokens / one.total for one in times]
    middle = sorted(times, key=lambda one: one.total)[len(times) // 2]
    return {
        "tokens_per_second": speeds,
        "parameters": parameter_count(recipe.model),
        "ranks": runtime.world_size,
        "memory": peak_memory_bytes(runtime.device),
        **utilisation.of(tokens / middle.total),
        **_shares(middle),
        "time_split": time_split(lambda: step.run(batch), runtime.device),
    }


def _shares(times: StepTimes) -> dict[str, float]:
    return {f"{name}_seconds": round(value, 4) for name, value in dataclasses.asdict(times).items()}


def _peer(name: str, options: argparse.Namespace, rows: int, micro_batch: int) -> dict[str, Any]:
    """Another trainer's step in a process of its own; "missing" says why there is none."""
    if any(variable in os.environ for variable in ("LOCAL_RANK", "WORLD_SIZE")):
        return {"missing": "runs on one process"}
    given = {
        "name": name,
        "recipe": str(options.recipe),
        "overrides": options.overrides,
        "rows": rows,
        "steps": options.steps,
        "warm_up": options.warm_up,
        "micro_batch": micro_batch,
    }
    try:
        return fresh_process("benchmarks.training_peers", json.dumps(given), seconds=options.peer_seconds)
    except RuntimeError as error:
        return {"missing": f"failed: {str(error).strip().splitlines()[-1][:200]}"}
