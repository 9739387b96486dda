"""Two optimiser steps of a small model at a layout, and all in them that another layout must repeat."""

from typing import Any

import pytest
import torch
from torch.distributed.tensor import DTensor
from training_world import RaggedSource, training_config

from megasbp.data.batch import Batch
from megasbp.data.loader import Loader
from megasbp.model.config import ModelConfig
from megasbp.model.init import initialize
from megasbp.model.transformer import Transformer
from megasbp.parallel.parallelize import parallelize
from megasbp.parallel.recompute import Mode
from megasbp.parallel.runtime import Runtime
from megasbp.training.checkpoint import checkpoint_tensors
from megasbp.training.gradients import accumulate_gradients
from megasbp.training.optimizer import AdamW, build_optimizer, optimizer_step

GLOBAL_BATCH = 16
STEPS = 2


def build_model(
    runtime: Runtime, config: ModelConfig, dtype: torch.dtype, checkpointing: Mode = "none"
) -> Transformer:
    """A model on its ranks; float64 is also the type of its parameters."""
    model = Transformer(config)
    initialize(model, 3)
    if dtype == torch.float64:
        model.double()
    return parallelize(model, runtime, dtype, checkpointing)


def whole(tensor: torch.Tensor) -> torch.Tensor:
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach().clone()


def rows_of_step(runtime: Runtime, step: int) -> Batch:
    """This rank's rows of the global batch of a step."""
    samples = range(step * GLOBAL_BATCH, (step + 1) * GLOBAL_BATCH)
    loader = Loader(RaggedSource(1), samples, GLOBAL_BATCH, runtime.data_rank, runtime.data_ranks, prefetch=0)
    (batch,) = loader
    return batch


def one_step(
    runtime: Runtime,
    model: Transformer,
    optimizer: AdamW,
    step: int,
    *,
    micro: int = 2,
    seen: dict[str, torch.Tensor] | None = None,
) -> torch.Tensor:
    """Makes one step; returns mean loss and gradient norm. `seen` receives every gradient."""
    batch = rows_of_step(runtime, step)
    valid = int(runtime.sum_over_data(torch.tensor(batch.valid_tokens)))
    nats = accumulate_gradients(model, batch, micro, valid, runtime.device)
    if seen is not None:
        for name, parameter in model.named_parameters():
            seen[f"{step}.gradient.{name}"] = whole(parameter.grad)
    # The clip is below the norm, so that the norm is part of the update.
    return optimizer_step(optimizer, 0.01, nats, valid, 0.1, runtime).clone()


def tensors_of_steps(runtime: Runtime, model: Transformer, micro: int) -> dict[str, torch.Tensor]:
    """Loss, gradient norm, every gradient and every parameter after STEPS steps of one global batch each."""
    # A gradient that is all rounding moves its parameter by the whole rate unless epsilon is larger.
    optimizer = build_optimizer(model, training_config(epsilon=1e-4))
    found: dict[str, torch.Tensor] = {}
    for step in range(STEPS):
        measured = one_step(runtime, model, optimizer, step, micro=micro, seen=found)
        found[f"{step}.loss"], found[f"{step}.norm"] = measured
    for name, tensor in checkpoint_tensors(model, optimizer).items():
        found[f"after.{name}"] = whole(tensor)
    return found


def assert_runs_agree(found: list[dict[str, Any]], expected: list[dict[str, Any]], steps: int) -> None:
    """The same samples at every step, and losses that differ by rounding, grown over the steps of AdamW."""
    assert len(found) == len(expected) == steps
    for row, reference in zip(found, expected, strict=True):
        exact = ("step", "tokens", "valid_tokens", "learning_rate", "skipped")
        assert {key: row[key] for key in exact} == {key: reference[key] for key in exact}
        for key in ("loss", "gradient_norm", "validation_loss"):
            if key in reference:
                assert row[key] == pytest.approx(reference[key], rel=1e-3), (row["step"], key)
