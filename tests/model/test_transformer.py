import pytest
import torch
from model_world import counting_positions, random_tokens, small_config, small_model
from torch.nn import functional

from megasbp.model.transformer import Transformer


def packed_row(documents: list[torch.Tensor], size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Tokens, positions and segments [1, size] of documents one after the other, and padding."""
    tokens, positions, segments = (torch.zeros(1, size, dtype=torch.int64) for _ in range(3))
    segments[:] = -1
    start = 0
    for number, document in enumerate(documents):
        place = slice(start, start + len(document))
        tokens[0, place], segments[0, place] = document, number
        positions[0, place] = torch.arange(len(document))
        start += len(document)
    positions[0, start:] = torch.arange(size - start)
    return tokens, positions, segments


@pytest.mark.parametrize("qk_norm", [True, False])
def test_packed_documents_get_the_logits_of_each_alone(qk_norm):
    model = small_model(qk_norm=qk_norm)
    documents = [random_tokens(1, size, seed=size)[0] for size in (13, 1, 17, 5)]
    packed = model(*packed_row(documents, 40))
    start = 0
    for document in documents:
        alone = model(document[None], counting_positions(1, len(document)))
        found = packed[:, start : start + len(document)]
        # fp32: matrix products of another shape add up in another order.
        torch.testing.assert_close(found, alone, rtol=0, atol=2e-5)
        start += len(document)


@pytest.mark.parametrize("tied", [True, False])
def test_the_loss_is_the_cross_entropy_of_the_logits(tied):
    model = small_model(tied=tied)
    tokens, labels, positions = random_tokens(2, 20), random_tokens(2, 20, seed=5), counting_positions(2, 20)
    labels[0, :7] = -100
    logits = model(tokens, positions)
    assert logits.dtype == torch.float32
    expected = functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view(2, 20)
    single = model(tokens, positions, labels=labels, reduction="none")
    torch.testing.assert_close(single, expected, rtol=0, atol=1e-5)
    assert model(tokens, positions, labels=labels).item() == pytest.approx(expected.sum().item(), rel=1e-6)


def test_a_z_loss_is_added_to_what_has_gradients_and_not_to_what_is_only_measured():
    model = small_model()
    tokens, labels, positions = random_tokens(2, 20), random_tokens(2, 20, seed=5), counting_positions(2, 20)
    labels[0, :7] = -100
    plain = model(tokens, positions, labels=labels)
    squares = model(tokens, positions).logsumexp(-1).square()
    expected = plain + 0.3 * (squares * (labels != -100)).sum()
    model.z_loss = 0.3
    assert model(tokens, positions, labels=labels).item() == pytest.approx(expected.item(), rel=1e-5)
    with torch.no_grad():
        assert model(tokens, positions, labels=labels).item() == pytest.approx(plain.item(), rel=1e-6)


@pytest.mark.parametrize("tied", [True, False])
def test_every_parameter_gets_the_gradient_of_finite_differences(tied):
    model = small_model(tied=tied, layers=2).double()
    model.compute_dtype = torch.float64
    tokens, positions, segments = packed_row([random_tokens(1, size, seed=size)[0] for size in (9, 6)], 18)
    labels = random_tokens(1, 18, seed=3).masked_fill(segments < 0, -100)
    model(tokens, positions, segments, labels).backward()
    step = 1e-6
    for name, parameter in model.named_parameters():
        direction = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(7)).double()
        direction /= direction.norm()
        losses = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter.add_(direction, alpha=sign * step)
                losses.append(model(tokens, positions, segments, labels).item())
                parameter.sub_(direction, alpha=sign * step)
        slope = (losses[0] - losses[1]) / (2 * step)
        # The rotary tables are fp32 in both; what is left is the difference quotient's own error.
        assert (parameter.grad * direction).sum().item() == pytest.approx(slope, rel=1e-5, abs=1e-6), name


def test_bf16_keeps_fp32_parameters_gradients_and_loss_and_comes_near():
    model = small_model()
    tokens, labels, positions = random_tokens(4, 50), random_tokens(4, 50, seed=5), counting_positions(4, 50)
    exact = model(tokens, positions, labels=labels)
    model.compute_dtype = torch.bfloat16
    assert model.hidden(tokens, positions).dtype == torch.bfloat16
    loss = model(tokens, positions, labels=labels)
    loss.backward()
    assert loss.dtype == torch.float32
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert {parameter.grad.dtype for parameter in model.parameters()} == {torch.float32}
    # A few hundred roundings of 2**-8, most of which cancel.
    assert loss.item() == pytest.approx(exact.item(), rel=5e-3)


def test_the_future_is_not_seen():
    model = small_model()
    tokens, positions = random_tokens(2, 30), counting_positions(2, 30)
    before = model(tokens, positions)[:, :20]
    tokens[:, 20:] = 0
    assert torch.equal(model(tokens, positions)[:, :20], before)


def test_a_position_shift_of_a_whole_document_changes_nothing():
    model = small_model(maximum_positions=4096)
    tokens = random_tokens(1, 20)
    shifted = model(tokens, counting_positions(1, 20) + 1000)
    # Rotations are relative; fp32 tables at two places.
    torch.testing.assert_close(shifted, model(tokens, counting_positions(1, 20)), rtol=0, atol=1e-4)


def test_names_of_the_state_are_plain_and_stable():
    names = set(Transformer(small_config(layers=1, tied=False)).state_dict())
    assert names == {
        "embedding.weight",
        "blocks.0.attention_norm.weight",
        "blocks.0.attention.query.weight",
        "blocks.0.attention.key.weight",
        "blocks.0.attention.value.weight",
        "blocks.0.attention.output.weight",
        "blocks.0.attention.query_norm.weight",
        "blocks.0.attention.key_norm.weight",
        "blocks.0.feed_forward_norm.weight",
        "blocks.0.feed_forward.gate.weight",
        "blocks.0.feed_forward.up.weight",
        "blocks.0.feed_forward.down.weight",
        "norm.weight",
        "output.weight",
    }
    assert "output.weight" not in Transformer(small_config(tied=True)).state_dict()


@pytest.mark.slow
def test_torch_compile_gives_the_same_loss_and_gradients():
    model = small_model(layers=1)
    tokens, labels, positions = random_tokens(2, 20), random_tokens(2, 20, seed=5), counting_positions(2, 20)
    segments = (counting_positions(2, 20) > 7).long()
    model(tokens, positions, segments, labels).backward()
    expected = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    torch.compile(model)(tokens, positions, segments, labels).backward()
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-5)
