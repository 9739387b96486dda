"""Two optimiser steps of a small model at a layout, and all in them that another layout must repeat."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from layouts import DTYPES, SOURCES, Case, config_of, source_of
from safetensors.torch import load_file, save_file
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from training_world import RaggedSource, initial_model, training_config

from megasbp.data.batch import Batch
from megasbp.data.loader import Loader
from megasbp.data.sources import SampleSource
from megasbp.model.transformer import Transformer
from megasbp.parallel import parallelize
from megasbp.parallel.config import ParallelConfig
from megasbp.parallel.fp8 import multiply_in_fp8
from megasbp.parallel.pipeline import Pipeline
from megasbp.parallel.runtime import Runtime
from megasbp.parallel.stage import AccumulatingStage
from megasbp.training.adamw import AdamW
from megasbp.training.checkpoint import checkpoint_tensors
from megasbp.training.gradients import accumulate_gradients
from megasbp.training.optimizer import build_optimizer, optimizer_step

GLOBAL_BATCH = 16
STEPS = 2
SCALARS = ("loss", "norm")
# ||difference|| / ||reference|| of a gradient, and of what two steps of AdamW have made of the parameters.
BOUNDS = {"fp64": (1e-10, 1e-8), "fp32": (1e-5, 1e-5)}


def whole(tensor: torch.Tensor) -> torch.Tensor:
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach().clone()


def rows_of_step(runtime: Runtime, source: SampleSource, step: int) -> Batch:
    """This rank's rows of the global batch of a step."""
    samples = range(step * GLOBAL_BATCH, (step + 1) * GLOBAL_BATCH)
    loader = Loader(source, samples, GLOBAL_BATCH, runtime.data_rank, runtime.data_ranks, prefetch=0)
    (batch,) = loader
    return batch


def one_step(
    runtime: Runtime,
    model: Transformer | Pipeline,
    optimizer: AdamW,
    step: int,
    *,
    micro: int = 2,
    source: SampleSource | None = None,
    seen: dict[str, torch.Tensor] | None = None,
) -> torch.Tensor:
    """Makes one step; returns mean loss and gradient norm. `seen` receives every gradient."""
    batch = rows_of_step(runtime, source or RaggedSource(1), step)
    valid = int(runtime.sum_over_data(torch.tensor(batch.valid_tokens)))
    nats = accumulate_gradients(model, batch, micro, valid, runtime.device)
    if seen is not None:
        for name, parameter in model.named_parameters():
            seen[f"{step}.gradient.{name}"] = whole(parameter.grad)
    # The clip is below the norm, so that the norm is part of the update.
    return optimizer_step(optimizer, 0.01, nats, valid, 0.1, runtime).clone()


def tensors_of_steps(
    runtime: Runtime, model: Transformer | Pipeline, micro: int, source: SampleSource | None = None
) -> dict[str, torch.Tensor]:
    """Loss, gradient norm, every gradient and every parameter after STEPS steps of one global batch each.

    Of a pipeline: those of this rank's stages, and the copy of a tied table.
    """
    # A gradient that is all rounding moves its parameter by the whole rate unless epsilon is larger.
    optimizer = build_optimizer(model, training_config(epsilon=1e-4))
    found: dict[str, torch.Tensor] = {}
    for step in range(STEPS):
        measured = one_step(runtime, model, optimizer, step, micro=micro, source=source, seen=found)
        found[f"{step}.loss"], found[f"{step}.norm"] = measured
    for name, tensor in checkpoint_tensors(model, optimizer).items():
        found[f"after.{name}"] = whole(tensor)
    if isinstance(model, Pipeline) and model.tied is not None and model.tied.copy is not None:
        found["copy of the table"] = whole(model.tied.copy)
    return found


class Layouts:
    """The same ranks in many layouts. Those of the same axes share groups, each of which has its threads."""

    def __init__(self, started: Runtime) -> None:
        self._started = started
        self._known: dict[ParallelConfig, Runtime] = {}

    def __call__(self, parallel: ParallelConfig) -> Runtime:
        axes = parallel.model_copy(update={"schedule": "1f1b", "asynchronous_tensor": False})
        if axes not in self._known:
            self._known[axes] = self._started.laid_out(axes)
        return replace(self._known[axes], parallel=parallel)


def run_case(case: Case, runtime: Runtime, sources: Mapping[str, SampleSource]) -> dict[str, torch.Tensor]:
    """`tensors_of_steps` of a case; 8-bit products are emulated, as no CPU has them."""
    dtype = DTYPES[case.dtype]
    with mock.patch.object(parallelize, "multiply_in_fp8", partial(multiply_in_fp8, emulate=True)):
        model = initial_model(
            config_of(case.model), runtime, dtype, case.checkpointing, case.compiled, case.fp8
        )
    return tensors_of_steps(runtime, model, case.micro_batch, sources[case.source])


def references(cases: Iterable[Case], folder: Path) -> dict[tuple[str, str, str], dict[str, torch.Tensor]]:
    """What one process computes for each case; `folder` is for its sources."""
    runtime = Runtime.start()
    sources = {name: source_of(name, folder) for name in SOURCES}
    wanted = {case.reference: case for case in cases}
    return {reference: run_case(case, runtime, sources) for reference, case in wanted.items()}


def passes_of_a_step(runtime: Runtime) -> dict[str, int]:
    """What a rank of a pipeline does in one step, and what its passes for inputs do to gradients of weights.

    Returns:
        "full", "inputs" and "weights": backward passes of a micro-batch through a stage; "early": passes for
        the inputs that have added to the gradient of a weight.
    """
    counts = {"full": 0, "inputs": 0, "weights": 0, "early": 0}
    of_inputs, of_weights = AccumulatingStage.backward_one_chunk, AccumulatingStage.backward_weight_one_chunk

    def inputs(self: AccumulatingStage, *given: Any, full_backward: bool = True, **named: Any) -> None:
        before = _held(self.submod)
        of_inputs(self, *given, full_backward=full_backward, **named)
        counts["full" if full_backward else "inputs"] += 1
        counts["early"] += not full_backward and _held(self.submod) != before

    def weights(self: AccumulatingStage, *given: Any, **named: Any) -> None:
        before = _held(self.submod)
        of_weights(self, *given, **named)
        assert _held(self.submod) != before
        counts["weights"] += 1

    with (
        mock.patch.object(AccumulatingStage, "backward_one_chunk", inputs),
        mock.patch.object(AccumulatingStage, "backward_weight_one_chunk", weights),
    ):
        model = initial_model(config_of("tied, 5 layers"), runtime)
        one_step(runtime, model, build_optimizer(model, training_config()), 0)
    return counts


def _held(stage: nn.Module) -> float:
    """A sum over the gradients that FSDP2 has not reduced yet."""
    total = 0.0
    for module in stage.modules():
        group = module._get_fsdp_state()._fsdp_param_group if isinstance(module, FSDPModule) else None
        for parameter in group.fsdp_params if group is not None else ():
            for gradient in (parameter.unsharded_accumulated_grad, parameter._unsharded_param.grad):
                total += 0.0 if gradient is None else float(gradient.double().abs().sum())
    return total


def keep(runtime: Runtime, tensors: dict[str, torch.Tensor], folder: Path) -> None:
    """Writes the tensors of each stage, by its first rank."""
    stage = 0 if runtime.pipeline is None else runtime.pipeline.get_local_rank()
    if runtime.rank % (runtime.world_size // runtime.parallel.pipeline) == 0:
        folder.mkdir(exist_ok=True)
        contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
        save_file(contiguous, folder / f"stages-{stage}.safetensors")


def kept(folder: Path) -> dict[str, torch.Tensor]:
    """What `keep` has written, of all stages."""
    found: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        tensors = load_file(path)
        assert not {*found} & {*tensors} - {f"{step}.{name}" for step in range(STEPS) for name in SCALARS}
        found |= tensors
    return found


def errors(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> dict[str, float]:
    """||difference|| / ||reference|| of each tensor."""
    return {name: float((found[name] - tensor).norm() / tensor.norm()) for name, tensor in expected.items()}


def wrong(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], dtype: str) -> dict[str, float]:
    """Tensors that differ by more than their type of numbers allows, and by how much."""
    of_gradient, of_parameter = BOUNDS[dtype]
    return {
        name: error
        for name, error in errors(found, expected).items()
        if not error <= (of_gradient if name.startswith("0.") else of_parameter)
    }


def assert_runs_agree(found: list[dict[str, Any]], expected: list[dict[str, Any]], steps: int) -> None:
    """The same samples at every step, and losses that differ by rounding, grown over the steps of AdamW."""
    assert len(found) == len(expected) == steps
    for row, reference in zip(found, expected, strict=True):
        exact = ("step", "tokens", "valid_tokens", "learning_rate", "skipped")
        assert {key: row[key] for key in exact} == {key: reference[key] for key in exact}
        for key in ("loss", "gradient_norm", "validation_loss"):
            if key in reference:
                assert row[key] == pytest.approx(reference[key], rel=1e-3), (row["step"], key)
