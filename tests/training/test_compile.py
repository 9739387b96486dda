"""Compiled blocks compute what plain ones do, as one program for all of them."""

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters
from training_world import RaggedSource, initial_model, model_config

from megasbp.parallel.recompute import Mode
from megasbp.parallel.runtime import Runtime
from megasbp.training.gradients import accumulate_gradients


# The others take half a minute of compiling each.
@pytest.mark.parametrize(
    "checkpointing",
    ["none", *(pytest.param(mode, marks=pytest.mark.slow) for mode in ("selective", "full"))],
)
def test_compiled_blocks_give_the_same_gradients(checkpointing: Mode) -> None:
    runtime, batch = Runtime.start(), RaggedSource(1).batch(np.arange(8))
    gradients, losses = [], []
    for compiled in (False, True):
        torch._dynamo.reset()
        counters.clear()
        model = initial_model(model_config(layers=3), runtime, checkpointing=checkpointing, compiled=compiled)
        losses.append(float(accumulate_gradients(model, batch, 4, batch.valid_tokens, runtime.device)))
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    assert counters["stats"]["unique_graphs"] == 1
    assert not counters["graph_break"]
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)
    for name, expected in gradients[0].items():
        assert (gradients[1][name] - expected).norm() < 1e-5 * expected.norm(), name
