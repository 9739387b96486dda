"""A loss put together from parts of the vocabulary, against the whole one in float64."""

import pytest
import torch

from megasbp.kernels.linear_cross_entropy import linear_cross_entropy
from megasbp.kernels.linear_cross_entropy_part import part_gradients, part_statistics

# Relative to the largest element: rounding of the products' operands, and of fp32 sums.
TOLERANCES = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 2e-2}


def by_parts(
    hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor, scale: torch.Tensor, sizes: list[int]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Nats and both gradients, summed as the ranks of a group would sum them."""
    firsts = [sum(sizes[:number]) for number in range(len(sizes))]
    parts = list(zip(weight.split(sizes), firsts, strict=True))
    statistics = [part_statistics(hidden, rows, labels, first) for rows, first in parts]
    largest = torch.stack([maximum for maximum, _, _ in statistics]).amax(0)
    total = sum(part * (maximum - largest).exp() for maximum, part, _ in statistics)
    normalizer = largest + total.log()
    nats = normalizer - sum(label_logit for _, _, label_logit in statistics)
    gradients = [part_gradients(hidden, rows, labels, first, normalizer, scale) for rows, first in parts]
    return (
        nats,
        torch.stack([of_hidden.double() for of_hidden, _ in gradients]).sum(0),
        torch.cat([of_rows for _, of_rows in gradients]),
    )


@pytest.mark.parametrize("dtype", list(TOLERANCES))
@pytest.mark.parametrize("sizes", [[97], [40, 57], [1, 95, 1]])
@pytest.mark.parametrize("tokens", [1, 300])
def test_parts_give_the_whole_loss_and_its_gradients(
    dtype: torch.dtype, sizes: list[int], tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Several chunks of tokens.
    monkeypatch.setattr("megasbp.kernels.linear_cross_entropy.CPU_LOGITS", 1)
    generator = torch.Generator().manual_seed(tokens)
    hidden = (4 * torch.randn(tokens, 24, generator=generator)).to(dtype)
    weight = torch.randn(sum(sizes), 24, generator=generator).to(dtype)
    labels = torch.randint(sum(sizes), (tokens,), generator=generator)
    scale = torch.rand(tokens, generator=generator, dtype=torch.float64)

    exact = [tensor.double().clone().requires_grad_() for tensor in (hidden, weight)]
    expected = linear_cross_entropy(*exact, labels, reduction="none")
    (expected * scale).sum().backward()
    found = by_parts(hidden, weight, labels, scale.to(torch.promote_types(dtype, torch.float32)), sizes)
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
