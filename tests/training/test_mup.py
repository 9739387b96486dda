"""What four steps of one learning rate do to a model's activations, at widths from 32 to 256."""

import numpy as np
import pytest
import torch
from training_world import VOCABULARY, RaggedSource, initial_model, training_config

from megasbp.model.config import ModelConfig
from megasbp.model.transformer import Transformer
from megasbp.parallel.runtime import Runtime
from megasbp.training.gradients import accumulate_gradients
from megasbp.training.optimizer import build_optimizer, optimizer_step

BASE = 32
WIDTHS = (32, 64, 128, 256)
STEPS = 4


def model_of(width: int, base: int | None, tied: bool) -> Transformer:
    """Wider by heads and feed-forward width."""
    config = ModelConfig(
        vocabulary_size=VOCABULARY,
        layers=2,
        width=width,
        heads=width // 8,
        kv_heads=width // 8,
        head_dim=8,
        feed_forward=2 * width,
        tied=tied,
        maximum_positions=64,
        mup_base_width=base,
    )
    return initial_model(config, Runtime.start())


@torch.no_grad()
def activations(model: Transformer, batch) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    hooks = [
        block.register_forward_hook(lambda _, __, out, name=f"block {number}": found.update({name: out}))
        for number, block in enumerate(model.blocks.values())
    ]
    found["logits"] = model(batch.tokens, batch.positions, batch.segments)
    for hook in hooks:
        hook.remove()
    return found


def changes(width: int, base: int | None, tied: bool, rate: float) -> dict[str, float]:
    """Root mean square of what the steps have changed each activation by."""
    model, runtime = model_of(width, base, tied), Runtime.start()
    optimizer = build_optimizer(model, training_config())
    batch = RaggedSource(1).batch(np.arange(16))
    before = activations(model, batch)
    for _ in range(STEPS):
        nats = accumulate_gradients(model, batch, 16, batch.valid_tokens, runtime.device)
        optimizer_step(optimizer, rate, nats, batch.valid_tokens, 1e9, runtime)
    after = activations(model, batch)
    return {name: float((after[name] - before[name]).square().mean().sqrt()) for name in before}


def slopes(base: int | None, tied: bool, rate: float) -> dict[str, float]:
    """Exponent with which each change grows with the width."""
    found = [changes(width, base, tied, rate) for width in WIDTHS]
    return {
        name: float(np.polyfit(np.log(WIDTHS), np.log([each[name] for each in found]), 1)[0])
        for name in found[0]
    }


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("rate", [3e-3, 1e-2])
def test_a_step_changes_activations_as_much_at_every_width(tied: bool, rate: float) -> None:
    found, plain = slopes(BASE, tied, rate), slopes(None, tied, rate)
    for block in ("block 0", "block 1"):
        # Measured: -0.02 to 0.07, and 0.40 to 1.1 without.
        assert abs(found[block]) < 0.1 and plain[block] > 0.3
    # The first logits are random ones, which fall with the root of the width; what steps add does not grow.
    assert -0.5 < found["logits"] < 0.05 and plain["logits"] > 0.25


def test_at_the_base_width_it_is_the_standard_parametrisation() -> None:
    found = changes(BASE, BASE, True, 1e-2)
    assert found == changes(BASE, None, True, 1e-2)


def test_rates_fall_with_the_width_inside_the_blocks_and_decay_takes_the_same_share() -> None:
    model = model_of(128, BASE, tied=False)
    optimizer = build_optimizer(model, training_config(weight_decay=0.1))
    names = {parameter: name for name, parameter in model.named_parameters()}
    found = {
        names[parameter]: (group["rate_multiplier"], group["rate_multiplier"] * group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    assert found.keys() == set(names.values())
    for name, (multiplier, decay) in found.items():
        norm, table = name.endswith("norm.weight"), name == "embedding.weight"
        assert multiplier == (0.25 if name.startswith("blocks.") and not norm else 1)
        assert decay == pytest.approx(0 if norm or table else 0.1, rel=1e-12)


def test_the_rate_that_is_set_is_multiplied() -> None:
    model = model_of(128, BASE, tied=True)
    optimizer = build_optimizer(model, training_config(weight_decay=0.0, epsilon=1e-12))
    batch = RaggedSource(1).batch(np.arange(4))
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    nats = accumulate_gradients(model, batch, 4, batch.valid_tokens, torch.device("cpu"))
    optimizer_step(optimizer, 0.01, nats, batch.valid_tokens, 1e9, Runtime.start())
    for name, rate in (("blocks.0.attention.query.weight", 0.0025), ("norm.weight", 0.01)):
        # The first step of Adam moves each number by its rate.
        moved = (model.get_parameter(name).detach() - before[name]).abs()
        assert float(moved.median()) == pytest.approx(rate, rel=1e-3)
