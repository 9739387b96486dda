import dataclasses

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from training_world import MODES, RaggedSource, initial_model, model_config, training_config

from megasbp.data.batch import Batch
from megasbp.model.transformer import Transformer
from megasbp.parallel.recompute import Mode
from megasbp.parallel.runtime import Runtime
from megasbp.training.gradients import accumulate_gradients
from megasbp.training.optimizer import build_optimizer, decay_groups, optimizer_step

CPU = torch.device("cpu")


def small_model(checkpointing: Mode = "none", **changes: object) -> Transformer:
    return initial_model(model_config(**changes), Runtime.start(), checkpointing=checkpointing)


def ragged_batch(rows: int = 8) -> Batch:
    return RaggedSource(1).batch(np.arange(rows))


def gradients(model: Transformer) -> dict[str, torch.Tensor]:
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("micro_batch", [1, 2, 3])
def test_accumulation_equals_one_big_batch_though_labels_are_uneven(micro_batch: int) -> None:
    batch = ragged_batch()
    per_row = (batch.labels != -100).sum(1)
    assert per_row.min() * 4 < per_row.max()
    whole, parts = small_model(), small_model()
    loss = accumulate_gradients(whole, batch, 8, batch.valid_tokens, CPU)
    loss_of_parts = accumulate_gradients(parts, batch, micro_batch, batch.valid_tokens, CPU)
    # Sums of fp32 losses in another order.
    assert float(loss_of_parts) == pytest.approx(float(loss), rel=1e-6)
    for name, gradient in gradients(whole).items():
        # The same products summed in another order: a few fp32 roundings of the largest summand.
        torch.testing.assert_close(gradients(parts)[name], gradient, rtol=1e-5, atol=2e-7, msg=name)


class Products(TorchDispatchMode):
    """Counts matrix products while it is open."""

    count = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        self.count += function is torch.ops.aten.mm.default
        return function(*arguments, **(options or {}))


def test_activations_that_are_computed_again_change_no_bit_and_need_less_memory() -> None:
    batch = ragged_batch()
    found, kept, products = {}, {}, {}
    for mode in MODES:
        model, sizes = small_model(mode), []
        hooks = torch.autograd.graph.saved_tensors_hooks(
            lambda tensor, sizes=sizes: sizes.append(tensor.nbytes) or tensor, lambda tensor: tensor
        )
        with Products() as counted, hooks:
            accumulate_gradients(model, batch, 4, batch.valid_tokens, CPU)
        found[mode], kept[mode], products[mode] = gradients(model), sum(sizes), counted.count
    for mode in MODES:
        assert all(torch.equal(found[mode][name], each) for name, each in found["none"].items())
    assert kept["full"] < kept["none"] / 3
    assert products["selective"] == products["none"]
    # Six products a block and micro-batch are made again: nothing needs what the seventh gives.
    assert products["full"] == products["none"] + 2 * 2 * 6


def test_gradients_are_those_of_the_mean_over_tokens_in_float64() -> None:
    batch = ragged_batch(4)
    model = small_model()
    accumulate_gradients(model, batch, 2, batch.valid_tokens, CPU)
    name, index = "blocks.0", 0
    parameter = next(p for n, p in model.named_parameters() if n.startswith(name) and p.ndim == 2)
    analytic = parameter.grad.flatten()[index].item()

    def mean_loss(shift: float) -> float:
        with torch.no_grad():
            parameter.view(-1)[index] += shift
            nats = model(batch.tokens, batch.positions, batch.segments, batch.labels, reduction="none")
            parameter.view(-1)[index] -= shift
        return nats.double().sum().item() / batch.valid_tokens

    # Central difference: error of order shift**2 plus fp32 loss rounding / shift.
    shift = 1e-2
    assert (mean_loss(shift) - mean_loss(-shift)) / (2 * shift) == pytest.approx(analytic, rel=2e-2, abs=2e-4)


def test_a_step_is_adamw_on_clipped_gradients() -> None:
    # With the usual epsilon a gradient that is all rounding would move its parameter by the whole rate.
    config = training_config(weight_decay=0.5, epsilon=1e-3)
    model = small_model()
    batch = ragged_batch()
    optimizer = build_optimizer(model, config)
    decayed = set(decay_groups(model)["decayed"])
    expected = {
        name: [parameter.detach().double(), torch.zeros(()).double(), torch.zeros(()).double()]
        for name, parameter in model.named_parameters()
    }
    for step in (1, 2, 3):
        nats = accumulate_gradients(model, batch, 8, batch.valid_tokens, CPU)
        raw = {name: gradient.double() for name, gradient in gradients(model).items()}
        norm = torch.stack([gradient.square().sum() for gradient in raw.values()]).sum().sqrt()
        for name, gradient in raw.items():
            value, first, second = expected[name]
            clipped = gradient * min(1.0, 0.05 / (float(norm) + 1e-6))
            first = 0.9 * first + 0.1 * clipped
            second = 0.95 * second + 0.05 * clipped**2
            value = value * (1 - 0.01 * (0.5 if name in decayed else 0.0))
            update = (first / (1 - 0.9**step)) / ((second / (1 - 0.95**step)).sqrt() + 1e-3)
            expected[name] = [value - 0.01 * update, first, second]
        loss, measured = optimizer_step(
            optimizer, 0.01, nats, batch.valid_tokens, 0.05, Runtime.start()
        ).tolist()
        assert measured == pytest.approx(float(norm), rel=1e-5)
        assert loss == pytest.approx(float(nats) / batch.valid_tokens, rel=1e-12)
    for name, parameter in model.named_parameters():
        # Three updates, each rounded to fp32 at magnitude <= 1, of gradients with a relative error of 1e-5.
        torch.testing.assert_close(
            parameter.detach().double(), expected[name][0], rtol=1e-6, atol=1e-6, msg=name
        )


@pytest.mark.parametrize("broken", ["loss", "gradient"])
def test_a_step_that_is_not_finite_changes_nothing_and_the_next_one_works(broken: str) -> None:
    model = small_model()
    batch = ragged_batch()
    optimizer = build_optimizer(model, training_config())
    for number in range(3):
        nats = accumulate_gradients(model, batch, 8, batch.valid_tokens, CPU)
        if number == 1:
            before = [parameter.detach().clone() for parameter in model.parameters()]
            if broken == "loss":
                nats.fill_(torch.inf)
            else:
                next(model.parameters()).grad.view(-1)[3] = torch.nan
        measured = optimizer_step(optimizer, 0.01, nats, batch.valid_tokens, 1.0, Runtime.start())
        unchanged = number == 1 and all(
            torch.equal(parameter, old) for parameter, old in zip(model.parameters(), before, strict=True)
        )
        assert unchanged == (number == 1)
        assert bool(measured.isfinite().all()) == (number != 1)
    steps = {float(state["step"]) for state in optimizer.state.values()}
    moments = [state["exp_avg"] for state in optimizer.state.values()]
    assert steps == {2.0}
    assert all(bool(moment.isfinite().all()) for moment in moments)


@pytest.mark.parametrize("tied", [True, False])
def test_decay_spares_norms_and_embeddings(tied: bool) -> None:
    model = small_model(tied=tied)
    groups = decay_groups(model)
    sizes = {name: parameter.ndim for name, parameter in model.named_parameters()}
    assert sorted([*groups["decayed"], *groups["kept"]]) == sorted(sizes)
    assert all(sizes[name] == 2 and "embedding" not in name for name in groups["decayed"])
    assert all(sizes[name] == 1 or "embedding" in name for name in groups["kept"])
    heads = [name for name in groups["decayed"] if not name.startswith("blocks.")]
    assert len(heads) == (0 if tied else 1)


def test_bf16_compute_keeps_parameters_gradients_and_moments_in_fp32() -> None:
    model = initial_model(model_config(), Runtime.start(), torch.bfloat16)
    batch = ragged_batch()
    exact = accumulate_gradients(small_model(), batch, 8, batch.valid_tokens, CPU)
    nats = accumulate_gradients(model, batch, 8, batch.valid_tokens, CPU)
    assert {tensor.dtype for p in model.parameters() for tensor in (p, p.grad)} == {torch.float32}
    assert nats != exact
    # bf16 keeps 8 bits: 0.4% a rounding, averaged over tokens.
    assert float(nats) == pytest.approx(float(exact), rel=0.01)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: only there whole rows go elsewhere")
def test_whole_rows_have_the_gradients_that_they_have_as_segments() -> None:
    shape = model_config(head_dim=64, heads=4, kv_heads=2, width=256, maximum_positions=512)
    tokens = torch.randint(shape.vocabulary_size, (4, 512), generator=torch.Generator().manual_seed(0)).int()
    places = torch.arange(512, dtype=torch.int32).expand(4, -1)
    batch = Batch(tokens, tokens.roll(-1, 1), places.contiguous(), torch.zeros_like(tokens))
    assert batch.has_whole_rows
    found = []
    for whole in (True, False):
        model = initial_model(shape, Runtime.start())
        model.compute_dtype = torch.bfloat16
        part = batch if whole else dataclasses.replace(batch, segments=batch.segments.clone())
        if not whole:
            # A last token of its own, without a label, leaves the rest as it is.
            part.segments[:, -1] = 1
        part.labels[:, -1] = -100
        accumulate_gradients(model, part, 4, part.valid_tokens, torch.device("cuda"))
        found.append(gradients(model))
    for name, gradient in found[0].items():
        assert (gradient - found[1][name]).norm() < 0.02 * gradient.norm(), name
