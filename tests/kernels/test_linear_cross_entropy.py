import pytest
import torch
from kernel_checks import ROUNDING, largest_error, most_bytes, normal_tensor, value_and_gradients
from torch.nn import functional

from megasbp.kernels import linear_cross_entropy as module
from megasbp.kernels.linear_cross_entropy import linear_cross_entropy

IGNORED = -100


def case(shape: tuple[int, ...], vocabulary: int, width: int, masked: float, dtype: torch.dtype):
    generator = torch.Generator().manual_seed(vocabulary)
    labels = torch.randint(vocabulary, shape, generator=generator, device="cpu")
    labels[torch.rand(shape, generator=generator, device="cpu") < masked] = IGNORED
    labels = labels.to(torch.get_default_device())
    hidden = normal_tensor(1, *shape, width, dtype=dtype)
    return hidden, normal_tensor(2, vocabulary, width, dtype=dtype) * 0.5, labels


def formula(labels: torch.Tensor, reduction: str, z_loss: float = 0.0):
    def losses(hidden: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        logits = hidden @ weight.t()
        nats = functional.cross_entropy(logits.flatten(0, -2), labels.flatten(), reduction="none")
        nats = nats.view(labels.shape) + z_loss * logits.logsumexp(-1).square() * (labels != IGNORED)
        return nats.sum() if reduction == "sum" else nats

    return losses


@pytest.fixture
def small_chunks(monkeypatch):
    """Chunks of at most 8 tokens, so that small cases have several."""
    monkeypatch.setattr(module, "_SMALLEST_CHUNK", 8)
    monkeypatch.setattr(module, "CPU_LOGITS", 1)
    monkeypatch.setattr(module, "DEVICE_LOGITS", 1)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize(("reduction", "z_loss"), [("sum", 0.0), ("none", 0.0), ("sum", 0.01), ("none", 0.3)])
@pytest.mark.parametrize(
    ("shape", "vocabulary", "width", "masked"),
    [
        ((1,), 5, 3, 0.0),
        ((1, 1), 2, 1, 0.0),
        ((2, 10), 97, 24, 0.0),
        ((3, 7), 1000, 32, 0.4),
        ((20,), 33, 7, 0.9),
    ],
)
# Losses are exact products summed in fp32. bf16 gradients: softmax, result and each of three chunks are
# rounded once.
@pytest.mark.parametrize(
    ("dtype", "loss_roundings", "gradient_roundings"),
    [(torch.float64, 64, 64), (torch.float32, 64, 256), (torch.bfloat16, None, 3)],
)
def test_loss_and_gradients_are_those_of_the_formula(
    shape, vocabulary, width, masked, reduction, z_loss, dtype, loss_roundings, gradient_roundings
):
    hidden, weight, labels = case(shape, vocabulary, width, masked, dtype)
    weights = normal_tensor(3, *(shape if reduction == "none" else ()))
    found = value_and_gradients(
        lambda h, w: linear_cross_entropy(h, w, labels, IGNORED, reduction, z_loss), (hidden, weight), weights
    )
    exact_inputs = (hidden.double(), weight.double())
    exact = value_and_gradients(formula(labels, reduction, z_loss), exact_inputs, weights)
    loss_tolerance = 1e-5 if loss_roundings is None else loss_roundings * ROUNDING[dtype]
    assert largest_error(found[0], exact[0]) <= loss_tolerance
    for one, other in zip(found[1:], exact[1:], strict=True):
        assert largest_error(one, other) <= gradient_roundings * ROUNDING[dtype]


@pytest.mark.parametrize("z_loss", [0.0, 0.01])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_where_no_gradients_are_kept_only_losses_are_computed_with_the_same_bits(monkeypatch, mode, z_loss):
    hidden, weight, labels = case((2, 50), 97, 24, 0.5, torch.bfloat16)
    inputs = hidden.requires_grad_(), weight.requires_grad_(), labels
    expected = linear_cross_entropy(*inputs, z_loss=z_loss)

    def gradients(*_: object) -> None:
        pytest.fail("gradients were computed")

    monkeypatch.setattr(module, "_losses_and_gradients", gradients)
    with mode():
        assert torch.equal(linear_cross_entropy(*inputs, z_loss=z_loss), expected)


def test_the_factor_of_a_sum_is_not_rounded_to_bf16():
    hidden, weight, labels = case((256,), 97, 48, 0.0, torch.bfloat16)
    factor = torch.tensor(1 / 98307, dtype=torch.float64)
    found = value_and_gradients(lambda h, w: linear_cross_entropy(h, w, labels), (hidden, weight), factor)
    exact = value_and_gradients(formula(labels, "sum"), (hidden.double(), weight.double()), factor)
    for one, other in zip(found[1:], exact[1:], strict=True):
        # What all numbers have in common: their own roundings are of either sign, and cancel. Rounded to
        # bf16 this factor is 2**-9 too large.
        common = (one * other).sum() / other.square().sum()
        assert abs(common.item() - 1) <= 2.0**-11


@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_labels_may_be_a_column_or_one_label_for_all(reduction):
    # Without masked ones, which would have the others copied.
    hidden, weight, labels = case((20,), 97, 8, 0.0, torch.float32)
    weights = normal_tensor(3, *((20,) if reduction == "none" else ()))
    for strided in (torch.stack((labels, labels.roll(1)), 1)[:, 0], labels[:1].expand(20)):
        found, expected = (
            value_and_gradients(
                lambda h, w, one=one: linear_cross_entropy(h, w, one, IGNORED, reduction),
                (hidden, weight),
                weights,
            )
            for one in (strided, strided.contiguous())
        )
        for one, other in zip(found, expected, strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("z_loss", [0.0, 0.5])
def test_both_reductions_have_the_gradients_of_finite_differences(z_loss):
    hidden, weight, labels = case((3, 4), 11, 5, 0.3, torch.float64)
    inputs = (hidden.requires_grad_(), weight.requires_grad_())
    for reduction in ("sum", "none"):
        assert torch.autograd.gradcheck(
            lambda h, w, r=reduction: linear_cross_entropy(h, w, labels, IGNORED, r, z_loss), inputs
        )


def test_the_sum_is_the_sum_of_the_single_losses_and_masked_ones_are_zero():
    hidden, weight, labels = case((2, 50), 97, 24, 0.5, torch.bfloat16)
    single = linear_cross_entropy(hidden, weight, labels, reduction="none")
    assert single.shape == labels.shape
    assert single.dtype == torch.float32
    assert (single[labels == IGNORED] == 0).all()
    # fp32 sums of 50 numbers in two orders
    assert linear_cross_entropy(hidden, weight, labels).item() == pytest.approx(single.sum().item(), rel=1e-6)


@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_without_any_label_loss_and_gradients_are_zero(reduction):
    hidden, weight, labels = case((2, 6), 9, 4, 1.1, torch.float32)
    loss, grad_hidden, grad_weight = value_and_gradients(
        lambda h, w: linear_cross_entropy(h, w, labels, IGNORED, reduction), (hidden, weight), torch.ones(())
    )
    assert loss.abs().sum() + grad_hidden.abs().sum() + grad_weight.abs().sum() == 0


def test_another_ignore_index_masks_those_labels():
    hidden, weight, labels = case((8,), 9, 4, 0.0, torch.float32)
    masked = torch.where(torch.arange(8) < 3, IGNORED, labels)
    marked = torch.where(torch.arange(8) < 3, 2**31, labels)
    expected = linear_cross_entropy(hidden, weight, masked)
    assert torch.equal(linear_cross_entropy(hidden, weight, marked, ignore_index=2**31), expected)


def test_a_sure_and_right_prediction_costs_nothing_and_a_sure_and_wrong_one_stays_finite():
    weight = torch.tensor([[200.0], [-200.0]])
    losses = linear_cross_entropy(torch.ones(2, 1), weight, torch.tensor([0, 1]), reduction="none")
    assert losses.tolist() == [0.0, 400.0]


def test_a_weight_in_fp32_is_rounded_to_the_type_of_hidden():
    hidden, weight, labels = case((7,), 9, 4, 0.0, torch.float32)
    hidden = hidden.bfloat16()
    rounded = linear_cross_entropy(hidden, weight.bfloat16(), labels)
    assert torch.equal(linear_cross_entropy(hidden, weight, labels), rounded)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("reduction", ["sum", "none"])
@pytest.mark.usefixtures("small_chunks")
def test_logits_of_all_tokens_are_never_held(monkeypatch, dtype, reduction):
    tokens, vocabulary = 48, 4096
    hidden, weight, labels = case((tokens,), vocabulary, 1, 0.0, dtype)
    inputs = hidden.requires_grad_(), weight.requires_grad_(), labels

    def step() -> None:
        loss = linear_cross_entropy(*inputs, reduction=reduction).sum()
        torch.autograd.grad(loss, inputs[:2])

    all_logits = tokens * vocabulary * torch.promote_types(dtype, torch.float32).itemsize
    # Of two tokens there are logits, their gradients and what is between.
    monkeypatch.setattr(module, "_SMALLEST_CHUNK", 2)
    assert most_bytes(step) <= all_logits / 2
    # The same measure sees those of all tokens where one chunk holds them.
    monkeypatch.setattr(module, "_SMALLEST_CHUNK", tokens)
    assert most_bytes(step) >= all_logits


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="do not fit"):
        linear_cross_entropy(torch.ones(3, 4), torch.ones(9, 5), torch.zeros(3, dtype=torch.int64))


@pytest.mark.parametrize("wrong", [-1, 9])
def test_a_label_outside_the_vocabulary_is_refused(wrong):
    labels = torch.tensor([3, wrong])
    if labels.device.type != "cpu":
        pytest.skip("labels are looked at on the CPU only")
    with pytest.raises(ValueError, match=f"{wrong}.*0 to 8"):
        linear_cross_entropy(torch.ones(2, 4), torch.ones(9, 4), labels)


def test_an_unknown_reduction_is_refused():
    with pytest.raises(ValueError, match="'mean'"):
        linear_cross_entropy(
            torch.ones(3, 4), torch.ones(9, 4), torch.zeros(3, dtype=torch.int64), reduction="mean"
        )
