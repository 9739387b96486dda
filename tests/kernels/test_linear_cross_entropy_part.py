"""A loss put together from parts of the vocabulary, against the whole one in float64."""

import pytest
import torch
from kernel_checks import normal_tensor

from megasbp.kernels.cross_entropy import nats_of
from megasbp.kernels.linear_cross_entropy import linear_cross_entropy
from megasbp.kernels.linear_cross_entropy_part import part_gradients, part_statistics

# Relative to the largest element: rounding of the products' operands, and of fp32 sums.
TOLERANCES = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 2e-2}


def by_parts(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    labels: torch.Tensor,
    scale: torch.Tensor,
    sizes: list[int],
    z_loss: float = 0.0,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Nats and both gradients, summed as the ranks of a group would sum them."""
    firsts = [sum(sizes[:number]) for number in range(len(sizes))]
    parts = list(zip(weight.split(sizes), firsts, strict=True))
    statistics = [part_statistics(hidden, rows, labels, first) for rows, first in parts]
    largest = torch.stack([maximum for maximum, _, _ in statistics]).amax(0)
    total = sum(part * (maximum - largest).exp() for maximum, part, _ in statistics)
    nats = nats_of(largest, total, sum(label_logit for _, _, label_logit in statistics), z_loss)
    gradients = [
        part_gradients(hidden, rows, labels, first, largest, total, scale, z_loss) for rows, first in parts
    ]
    return (
        nats,
        torch.stack([of_hidden.double() for of_hidden, _ in gradients]).sum(0),
        torch.cat([of_rows for _, of_rows in gradients]),
    )


@pytest.mark.parametrize("dtype", list(TOLERANCES))
@pytest.mark.parametrize("sizes", [[97], [40, 57], [1, 95, 1]])
@pytest.mark.parametrize(("tokens", "z_loss"), [(1, 0.0), (20, 0.0), (20, 0.1)])
def test_parts_give_the_whole_loss_and_its_gradients(
    dtype: torch.dtype, sizes: list[int], tokens: int, z_loss: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Several chunks of tokens.
    for name in ("_SMALLEST_CHUNK", "CPU_LOGITS", "DEVICE_LOGITS"):
        monkeypatch.setattr(f"megasbp.kernels.linear_cross_entropy.{name}", 8)
    hidden, weight = 4 * normal_tensor(1, tokens, 24, dtype=dtype), normal_tensor(2, 97, 24, dtype=dtype)
    labels = torch.arange(tokens) * 31 % 97
    scale = normal_tensor(3, tokens).abs()

    exact = [tensor.double().clone().requires_grad_() for tensor in (hidden, weight)]
    expected = linear_cross_entropy(*exact, labels, reduction="none", z_loss=z_loss)
    (expected * scale).sum().backward()
    scale_math = scale.to(torch.promote_types(dtype, torch.float32))
    found = by_parts(hidden, weight, labels, scale_math, sizes, z_loss)
    for tensor, reference in zip(found, (expected.detach(), exact[0].grad, exact[1].grad), strict=True):
        bound = TOLERANCES[dtype] * float(reference.abs().max())
        assert float((tensor.double() - reference).abs().max()) <= bound


def test_logits_that_overflow_exp_and_parts_far_below_the_others_count() -> None:
    hidden = torch.tensor([[1.0], [-1.0]])
    weight = torch.tensor([[1000.0], [999.0], [-1000.0]])
    labels = torch.tensor([1, 2])
    nats, of_hidden, of_weight = by_parts(hidden, weight, labels, torch.ones(2), [2, 1])
    whole = [tensor.double().clone().requires_grad_() for tensor in (hidden, weight)]
    expected = linear_cross_entropy(*whole, labels, reduction="none")
    expected.sum().backward()
    torch.testing.assert_close(nats.double(), expected, rtol=1e-6, atol=1e-4)
    # Logits of 1,000 are rounded to 6e-5, probabilities by as much of themselves, and weights are 1,000.
    torch.testing.assert_close(of_hidden, whole[0].grad, rtol=0, atol=0.06)
    torch.testing.assert_close(of_weight.double(), whole[1].grad, rtol=1e-4, atol=1e-6)
