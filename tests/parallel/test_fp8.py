"""Matrix products in 8 bits: which layers make them, how exact they are, where they are refused."""

import numpy as np
import pytest
import torch
from torch import nn

from megasbp.model.config import ModelConfig
from megasbp.model.init import initialize
from megasbp.model.layers import Linear
from megasbp.model.transformer import Transformer
from megasbp.parallel.fp8 import Scaling, fp8_problem, multiply_in_fp8

MODEL = ModelConfig(
    vocabulary_size=61,
    layers=2,
    width=32,
    heads=2,
    kv_heads=2,
    head_dim=16,
    feed_forward=64,
    tied=False,
    maximum_positions=64,
)


@pytest.mark.parametrize("scaling", ["tensorwise", "rowwise"])
def test_a_product_is_wrong_by_the_rounding_of_its_factors(scaling: Scaling) -> None:
    pytest.importorskip("torchao", reason="needs torchao: make peers")
    model = Transformer(MODEL)
    initialize(model, 3)
    layer = model.blocks["0"].feed_forward.gate
    x = torch.randn(64, 32, generator=torch.Generator().manual_seed(0)).requires_grad_()
    grad = torch.randn(64, 64, generator=torch.Generator().manual_seed(1))
    exact = (layer(x), *torch.autograd.grad(layer(x), (x, layer.weight), grad))
    multiply_in_fp8(model, scaling, emulate=True)
    found = (layer(x), *torch.autograd.grad(layer(x), (x, layer.weight), grad))
    # Numbers of 3 bits of mantissa are wrong by up to 2**-4, gradients may have 2: 2**-3. Errors of random
    # sign add up to less.
    for value, expected, bound in zip(found, exact, (2**-3, 2**-3 + 2**-4, 2**-3 + 2**-4), strict=True):
        error = (value - expected).norm() / expected.norm()
        assert 2**-8 < error < bound


def loss_of(scaling: Scaling | None) -> float:
    model = Transformer(MODEL)
    initialize(model, 3)
    if scaling is not None:
        multiply_in_fp8(model, scaling, emulate=True)
    tokens = torch.from_numpy(np.random.default_rng(0).integers(61, size=(4, 32)))
    with torch.no_grad():
        return float(model(tokens, torch.arange(32).expand(4, 32), None, tokens.roll(-1, 1)))


@pytest.mark.parametrize("scaling", ["tensorwise", "rowwise"])
def test_the_loss_stays_near(scaling: Scaling) -> None:
    pytest.importorskip("torchao", reason="needs torchao: make peers")
    assert loss_of(scaling) != loss_of(None)
    assert loss_of(scaling) == pytest.approx(loss_of(None), rel=0.01)


def test_only_the_blocks_multiply_in_8_bits() -> None:
    pytest.importorskip("torchao", reason="needs torchao: make peers")
    model = Transformer(MODEL)
    multiply_in_fp8(model, "tensorwise", emulate=True)
    changed = {name for name, layer in model.named_modules() if "product" in vars(layer)}
    assert changed == {
        name
        for name, layer in model.named_modules()
        if isinstance(layer, Linear) and name.startswith("blocks.")
    }
    assert len(changed) == 14
    assert isinstance(model.output, nn.Module) and "product" not in vars(model.output)


def test_a_cpu_is_refused() -> None:
    problem = fp8_problem(MODEL, 1, torch.device("cpu"))
    assert problem is not None and "compute capability 8.9 or later), this is a CPU; leave it out" in problem


@pytest.mark.parametrize(
    ("ranks", "changes", "said"),
    [
        (1, {"width": 40}, "model.width is 40; make it 32"),
        (8, {}, "model.feed_forward / parallel.tensor is 8; make it 16"),
        (1, {"heads": 4, "head_dim": 10}, "model.heads * model.head_dim / parallel.tensor is 40; make it 32"),
    ],
)
def test_sizes_that_8_bit_products_do_not_take(
    monkeypatch: pytest.MonkeyPatch, ranks: int, changes: dict[str, int], said: str
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    config = MODEL.model_copy(update=changes)
    problem = fp8_problem(config, ranks, torch.device("cuda"))
    assert problem is not None and said in problem
    assert fp8_problem(MODEL, 1, torch.device("cuda")) is None
