"""fp16 goes to Triton as bf16 does: each kernel once, for only what is read and written has another type."""

import pytest
import test_attention
import test_cross_entropy
import test_paged_attention
import test_qk_norm_rope
import test_rms_norm
import test_rope
import test_swiglu
import torch
from kernel_checks import ROUNDING, assert_as_exact_as, largest_error, normal_tensor
from torch.nn import functional

from megasbp.kernels.attention import attention
from megasbp.kernels.cross_entropy import cross_entropy
from megasbp.kernels.invariant_linear import invariant_linear, invariant_wide_product
from megasbp.kernels.linear_cross_entropy import linear_cross_entropy
from megasbp.kernels.paged_attention import paged_attention, write_pages
from megasbp.kernels.qk_norm_rope import qk_norm_rope
from megasbp.kernels.rms_norm import add_rms_norm, rms_norm
from megasbp.kernels.rope import rotate, rotation_table
from megasbp.kernels.swiglu import swiglu

FP16 = torch.float16
pytestmark = pytest.mark.parametrize("path", ["triton"], indirect=True)


def tensors(*shapes: tuple[int, ...]) -> list[torch.Tensor]:
    return [normal_tensor(seed, *shape, dtype=FP16) for seed, shape in enumerate(shapes)]


# The mathematics is fp32: one rounding of each result.
def test_norms():
    x, residual, weight = tensors((7, 33), (7, 33), (33,))
    epsilon = test_rms_norm.EPSILON
    assert_as_exact_as(test_rms_norm.kernel, test_rms_norm.formula, (x, weight), 1.1)
    total, normalised = add_rms_norm(x, residual, weight, epsilon)
    assert torch.equal(total, x + residual)
    assert torch.equal(normalised, rms_norm(total, weight, epsilon))


def test_rotations():
    positions = test_rope.random_positions(2, 9)
    table = rotation_table(positions, 16, test_rope.THETA)
    q, k, *weights = tensors((2, 9, 3, 16), (2, 9, 1, 16), (16,), (16,))
    assert_as_exact_as(
        lambda *x: torch.cat(rotate(*x, table), 2),
        lambda *x: torch.cat([test_rope.formula(one, positions) for one in x], 2),
        (q, k),
        1.1,
    )
    assert_as_exact_as(
        lambda *x: torch.cat(qk_norm_rope(*x, table, test_qk_norm_rope.EPSILON), 2),
        lambda q, k, *weights: torch.cat(
            [
                test_qk_norm_rope.formula(x, weight, positions)
                for x, weight in zip((q, k), weights, strict=True)
            ],
            2,
        ),
        (q, k, *weights),
        1.1,
    )


def test_activation():
    assert_as_exact_as(swiglu, test_swiglu.formula, tensors((3, 5, 33), (3, 5, 33)), 1.1)


# Weights and the scores' gradients are rounded for the products, as those of bf16 are.
@pytest.mark.parametrize("head_dim", [12, 16])
def test_attention_of_segments(head_dim):
    segments = test_attention.segments_of([20, 13, 7])
    q, k, v = tensors((1, 40, 2, head_dim), (1, 40, 1, head_dim), (1, 40, 1, head_dim))
    assert_as_exact_as(
        lambda *x: attention(*x, segments), lambda *x: test_attention.formula(*x, segments), (q, k, v), 3
    )


def test_losses():
    labels = test_cross_entropy.labels_of((7, 97))
    logits, hidden, weight = tensors((7, 97), (7, 24), (97, 24))
    assert_as_exact_as(
        lambda x: cross_entropy(x, labels, reduction="none"),
        lambda x: test_cross_entropy.formula(x, labels, 0.0, "none"),
        (logits,),
        1.1,
    )
    # The gradient of the logits is rounded for the products, then their result.
    assert_as_exact_as(
        lambda *x: linear_cross_entropy(*x, labels),
        lambda hidden, weight: functional.cross_entropy(hidden @ weight.t(), labels, reduction="sum"),
        (hidden, weight),
        3,
    )


def test_attention_to_pages():
    q, keys, values, table, lengths = test_paged_attention.case(test_paged_attention.CASES[1], FP16)
    exact = test_paged_attention.formula(q, keys, values, table, lengths)
    assert (
        largest_error(paged_attention(q, keys, values, table, lengths).double(), exact) <= 2 * ROUNDING[FP16]
    )
    new_k, new_v = tensors((1, *keys.shape[2:]), (1, *keys.shape[2:]))
    write_pages(keys, values, new_k, new_v, torch.tensor([3]))
    assert torch.equal(keys[0, 3], new_k[0])
    assert torch.equal(values[0, 3], new_v[0])


def test_products():
    x, weight = tensors((9, 64), (65, 64))
    exact = functional.linear(x.double(), weight.double())
    assert largest_error(invariant_linear(x, weight).double(), exact) <= 1.1 * ROUNDING[FP16]
    wide = invariant_wide_product(x, weight.t())
    assert largest_error(wide.double(), exact) <= 64 * ROUNDING[torch.float32]
