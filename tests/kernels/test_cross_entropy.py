import importlib.util

import pytest
import torch
from kernel_checks import ROUNDING, assert_as_exact_as, largest_error, normal_tensor
from torch import library

from megasbp.kernels.cross_entropy import (
    check_labels,
    cross_entropy,
    cross_entropy_gradient,
    cross_entropy_statistics,
    nats_of,
)

IGNORED = -100
HAS_TRITON = importlib.util.find_spec("triton") is not None
# Logits that a program of Triton's takes at a time.
BLOCK = importlib.import_module("megasbp.kernels.gpu.cross_entropy").DEFAULT.blocks[0] if HAS_TRITON else 64
# Sums of some thousands of terms; a softmax of bf16 logits is rounded once, their loss is fp32.
TYPES = [(torch.float64, 64), (torch.float32, 64), (torch.bfloat16, 1.1)]
# One row, sizes beside powers of two, more logits than a program takes at a time.
SHAPES = [(1, 5), (7, 97), (2, 3, 128), (3, 2 * BLOCK + 5)]


def labels_of(shape: tuple[int, ...], masked: float = 0.3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(shape[-1])
    labels = torch.randint(shape[-1], shape[:-1], generator=generator, device="cpu")
    labels[torch.rand(shape[:-1], generator=generator, device="cpu") < masked] = IGNORED
    return labels.to(torch.ones(()).device)


def formula(logits: torch.Tensor, labels: torch.Tensor, z_loss: float, reduction: str) -> torch.Tensor:
    kept = labels != IGNORED
    normalizer = logits.logsumexp(-1)
    label_logit = logits.gather(-1, labels.clamp(min=0)[..., None].long())[..., 0]
    nats = (normalizer - label_logit + z_loss * normalizer**2) * kept
    return nats.sum() if reduction == "sum" else nats


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("dtype", "roundings"), TYPES)
@pytest.mark.parametrize(("reduction", "z_loss"), [("sum", 0.0), ("none", 0.0), ("none", 0.03)])
def test_loss_and_gradient_are_those_of_the_formula(shape, dtype, roundings, reduction, z_loss):
    # One row has a label: errors are relative to the largest value, which is not 0.
    labels = labels_of(shape, 0.0 if shape[0] == 1 else 0.3)
    logits = 3 * normal_tensor(1, *shape, dtype=dtype) + 5
    assert_as_exact_as(
        lambda x: cross_entropy(x, labels, IGNORED, z_loss, reduction),
        lambda x: formula(x, labels, z_loss, reduction),
        (logits,),
        roundings,
    )


@pytest.mark.parametrize("z_loss", [0.0, 0.5])
def test_gradients_are_those_of_finite_differences(z_loss):
    labels, logits = labels_of((4, 6)), normal_tensor(1, 4, 6).requires_grad_()
    for reduction in ("sum", "none"):
        assert torch.autograd.gradcheck(
            lambda x, r=reduction: cross_entropy(x, labels, IGNORED, z_loss, r), (logits,)
        )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("sizes", [[97], [40, 57], [1, 95, 1]])
def test_parts_of_a_vocabulary_give_the_whole_loss_and_its_gradient(dtype, sizes):
    logits, labels = 4 * normal_tensor(1, 9, 97, dtype=dtype), labels_of((9, 97))
    scale = normal_tensor(2, 9, dtype=torch.promote_types(dtype, torch.float32))
    firsts = [sum(sizes[:number]) for number in range(len(sizes))]
    # A part is no tensor whose rows stand one after the other.
    parts = list(zip(logits.split(sizes, 1), firsts, strict=True))
    marked = labels.masked_fill(labels == IGNORED, -1)
    found = [cross_entropy_statistics(part, marked, first) for part, first in parts]
    maximum = torch.stack([one for one, _, _ in found]).amax(0)
    total = sum(part * (one - maximum).exp() for one, part, _ in found)
    nats = nats_of(maximum, total, sum(logit for _, _, logit in found), 0.1) * (labels != IGNORED)
    gradient = torch.cat(
        [
            cross_entropy_gradient(part, marked, first, maximum, total, scale, 0.1, logits.dtype)
            for part, first in parts
        ],
        1,
    )
    exact = logits.double().requires_grad_()
    expected = formula(exact, labels, 0.1, "none")
    (expected_gradient,) = torch.autograd.grad((expected * scale).sum(), exact)
    # Roundings of fp32 logits, sums of 97 terms and the logarithm; of bf16 gradients, one.
    rounding = torch.finfo(torch.promote_types(dtype, torch.float32)).eps
    assert largest_error(nats.double(), expected.detach()) <= 32 * rounding
    assert largest_error(gradient.double(), expected_gradient) <= max(
        64 * rounding, 0.55 * torch.finfo(dtype).eps
    )


@pytest.mark.parametrize("labels_dtype", [torch.int32, torch.int64])
def test_operators_read_labels_and_numbers_of_any_strides(labels_dtype):
    logits, labels = normal_tensor(1, 9, 97, dtype=torch.float32), labels_of((9, 97), 0.0).to(labels_dtype)
    scale = normal_tensor(2, 9, dtype=torch.float32)

    def both(labels: torch.Tensor, *strided: torch.Tensor) -> tuple[torch.Tensor, ...]:
        statistics = cross_entropy_statistics(logits, labels, 0)
        return *statistics, cross_entropy_gradient(logits, labels, 0, *strided, 0.1, torch.float32)

    maximum, total, _ = cross_entropy_statistics(logits, labels, 0)
    columns = [torch.stack((x, x.flip(0)), 1)[:, 0] for x in (labels, maximum, total, scale)]
    repeated = [x[:1].expand(9) for x in (labels, maximum, total, scale)]
    for strided in (columns, repeated):
        expected = both(*(x.contiguous() for x in strided))
        for one, other in zip(both(*strided), expected, strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("labels_dtype", [torch.int32, torch.int64])
def test_tokens_without_a_loss_are_never_read(labels_dtype):
    logits = torch.full((3, 70), torch.nan)
    logits[1] = 0.0
    labels = torch.tensor([IGNORED, 4, IGNORED], dtype=labels_dtype)
    logits.requires_grad_()
    nats = cross_entropy(logits, labels, reduction="none")
    (gradient,) = torch.autograd.grad(nats.sum(), logits)
    assert nats.tolist() == [0.0, pytest.approx(4.2484952, rel=1e-6), 0.0]
    assert gradient[[0, 2]].abs().sum() == 0
    assert gradient[1].isfinite().all()


def test_extreme_logits_stay_finite_and_impossible_tokens_have_no_gradient():
    logits = torch.tensor([[200.0, -200.0, 0.0], [1e30, -1e30, 0.0], [-torch.inf, -torch.inf, 3.0]])
    logits.requires_grad_()
    nats = cross_entropy(logits, torch.tensor([1, 0, 2]), reduction="none")
    (gradient,) = torch.autograd.grad(nats.sum(), logits)
    assert nats.tolist() == [400.0, 0.0, 0.0]
    assert gradient.tolist() == [[1.0, -1.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]


def test_a_row_that_begins_with_a_block_of_impossible_tokens_counts_the_others():
    logits = torch.full((1, 2 * BLOCK + 5), -torch.inf)
    logits[0, BLOCK + 7 : BLOCK + 11] = 1.0
    assert cross_entropy(logits, torch.tensor([BLOCK + 8])).item() == pytest.approx(1.3862944, rel=1e-6)


# Blocks whose largest logits rise, fall, and are those of nothing possible: sums are rescaled, or are none.
@pytest.mark.parametrize("levels", [(0, 40, 80, 81), (80, 40, 0, 1), (-torch.inf, 3, -torch.inf, 5)])
@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("path", ["triton"], indirect=True)
def test_blocks_of_a_row_add_up_to_the_row(levels, scaled):
    from megasbp.kernels.gpu import cross_entropy as gpu
    from megasbp.kernels.gpu.launch import Config

    config, z_loss = Config(blocks=(32,), warps=1, stages=1), 0.01
    logits = normal_tensor(1, 5, 4 * 32, dtype=torch.float32) + torch.tensor(levels).repeat_interleave(32)
    # A label in every block, and none.
    labels = torch.tensor([3, 32 + 31, 64, 127, -1])
    scale = normal_tensor(2, 5, dtype=torch.float32) if scaled else None
    maximum, total, label_logit = gpu.statistics(logits, labels, 0, config)
    gradient = gpu.gradient(logits, labels, 0, maximum, total, scale, z_loss, torch.float32, config)
    nats = nats_of(maximum, total, label_logit, z_loss)
    exact = logits.double().requires_grad_()
    kept = labels >= 0
    expected = formula(exact, labels.masked_fill(~kept, IGNORED), z_loss, "none")
    possible = (label_logit > -torch.inf) & kept
    weighted = expected if scale is None else expected * scale
    (expected_gradient,) = torch.autograd.grad(weighted[kept].sum(), exact)
    assert largest_error(nats[possible].double(), expected.detach()[possible]) <= 64 * ROUNDING[torch.float32]
    assert largest_error(gradient.double(), expected_gradient) <= 64 * ROUNDING[torch.float32]


def test_a_part_of_impossible_tokens_adds_nothing():
    logits = torch.full((1, 8), -torch.inf)
    maximum, total, label_logit = cross_entropy_statistics(logits, torch.tensor([9]), 0)
    assert (maximum.item(), total.item(), label_logit.item()) == (-torch.inf, 0.0, 0.0)


def test_the_bits_of_a_row_do_not_depend_on_the_others():
    logits, labels = normal_tensor(1, 5, 300, dtype=torch.float32), labels_of((5, 300), 0.0)
    together = cross_entropy(logits, labels, reduction="none")
    assert torch.equal(cross_entropy(logits[3:4], labels[3:4], reduction="none"), together[3:4])


def test_a_vocabulary_of_one_token_has_no_loss():
    logits = torch.ones(3, 1, requires_grad=True)
    loss = cross_entropy(logits, torch.zeros(3, dtype=torch.int64))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad.abs().sum() == 0


def test_no_rows_have_no_loss():
    logits = torch.ones(0, 8, requires_grad=True)
    loss = cross_entropy(logits, torch.ones(0, dtype=torch.int64))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad.shape == (0, 8)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_operators_are_what_they_say(dtype):
    logits, labels = normal_tensor(1, 4, 33, dtype=dtype), labels_of((4, 33)).clamp(min=-1)
    ops = torch.ops.megasbp
    library.opcheck(ops.cross_entropy_forward.default, (logits.clone().requires_grad_(), labels, 0.1))
    # Also of a tensor that is not contiguous.
    part = logits[:, 3:20]
    library.opcheck(ops.cross_entropy_statistics.default, (part, labels, 3))
    numbers = cross_entropy_statistics(logits, labels, 0)[:2]
    for scale, result in ((numbers[0], dtype), (None, torch.bfloat16)):
        library.opcheck(ops.cross_entropy_gradient.default, (part, labels, 3, *numbers, scale, 0.1, result))
    turned, labels = normal_tensor(1, 33, 4, dtype=dtype).t(), labels.contiguous()
    library.opcheck(ops.cross_entropy_gradient.default, (turned, labels, 0, *numbers, None, 0.1, dtype))
    library.opcheck(ops.cross_entropy_forward.default, (turned.requires_grad_(), labels, 0.1))


@pytest.mark.parametrize("wrong", [-1, 9])
def test_a_label_outside_the_vocabulary_is_refused_on_the_cpu(wrong):
    logits, labels = torch.ones(2, 9), torch.tensor([3, wrong])
    if logits.device.type != "cpu":
        pytest.skip("a GPU stops the program")
    with pytest.raises(ValueError, match=f"{wrong}.*0 to 8"):
        cross_entropy(logits, labels)


class OnAGpu:
    """Labels that say that they are on a GPU, and compare as those of a CPU do."""

    device = torch.device("cuda")
    __hash__ = None

    def __init__(self, labels: list[int]) -> None:
        self._labels = torch.tensor(labels, device="cpu")

    def __ge__(self, other: int) -> torch.Tensor:
        return self._labels >= other

    def __lt__(self, other: int) -> torch.Tensor:
        return self._labels < other

    def __eq__(self, other: object) -> torch.Tensor:
        return self._labels == other


@pytest.mark.parametrize("path", ["torch"], indirect=True)
def test_a_label_outside_the_vocabulary_stops_a_gpu():
    check_labels(OnAGpu([0, 8, IGNORED]), IGNORED, 9)
    # On the GPU itself the program ends, and with it every test.
    for wrong in (-1, 9):
        with pytest.raises(RuntimeError, match="outside 0 to 8"):
            check_labels(OnAGpu([3, wrong]), IGNORED, 9)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"z_loss": -1.0}, "z_loss is -1.0"), ({"reduction": "mean"}, "'mean'")],
)
def test_options_that_a_loss_has_not_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        cross_entropy(torch.ones(2, 9), torch.zeros(2, dtype=torch.int64), **options)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="do not fit"):
        cross_entropy(torch.ones(3, 9), torch.zeros(2, dtype=torch.int64))
