import random
from collections.abc import Sequence

import pytest
import torch
from kernel_checks import ROUNDING, assert_as_exact_as, largest_error, normal_tensor
from torch import library

from megasbp.kernels.attention import attention, attention_at, attention_within, prepare_segments
from megasbp.kernels.attention_backend import attend_in_flex


def formula(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, segments: torch.Tensor | None) -> torch.Tensor:
    """Softmax over the whole matrix, what must not be seen set to -inf."""
    size, heads, head_dim = q.shape[1:]
    k, v = (x.repeat_interleave(heads // x.shape[2], dim=2) for x in (k, v))
    scores = torch.einsum("bqhe,bkhe->bhqk", q, k) / head_dim**0.5
    visible = torch.ones(size, size, dtype=torch.bool).tril().expand(len(q), 1, size, size)
    if segments is not None:
        visible = visible & (segments[:, None, :, None] == segments[:, None, None, :])
    weights = torch.softmax(scores.masked_fill(~visible, float("-inf")), -1)
    return torch.einsum("bhqk,bkhe->bqhe", weights, v)


def segments_of(*rows: Sequence[int]) -> torch.Tensor:
    """Each row given by the lengths of its segments; the last one is padding (-1)."""
    numbered = [
        [n for n, length in enumerate(row[:-1]) for _ in range(length)] + [-1] * row[-1] for row in rows
    ]
    return torch.tensor(numbered)


ODD = ((1, 7, 29, 0), (37, 0), (3, 3, 3, 20, 8))
SHAPES = [
    # batch, tokens, query heads, key-value heads, head dimension, lengths of segments
    (1, 1, 1, 1, 2, None),
    (1, 1, 2, 1, 4, ((1, 0),)),
    (1, 33, 4, 2, 16, None),
    (3, 37, 3, 1, 8, ODD),
    (3, 37, 2, 2, 32, ODD),
    (1, 130, 2, 1, 32, ((75, 40, 15),)),
    (2, 5, 4, 2, 16, ((5, 0), (5, 0))),
    # Head dimensions that are trained, over several tiles of their own configs.
    (1, 200, 2, 1, 64, None),
    (1, 200, 2, 1, 96, ((70, 100, 30),)),
    (1, 300, 3, 1, 128, ((170, 120, 10),)),
]


@pytest.mark.parametrize("shape", SHAPES)
# bf16 in C++ and PyTorch: inputs are cast to fp32; the result is rounded once, and the gradient's parts too.
# In Triton the softmax and the scores' gradients are rounded for the matrix products as well, and the result
# that the gradients start from.
@pytest.mark.parametrize(
    ("dtype", "roundings"), [(torch.float64, 64), (torch.float32, 64), (torch.bfloat16, 1.2)]
)
def test_value_and_gradients_are_those_of_the_formula(path, shape, dtype, roundings):
    batch, size, heads, kv_heads, head_dim, lengths = shape
    segments = None if lengths is None else segments_of(*lengths)
    q = normal_tensor(1, batch, size, heads, head_dim, dtype=dtype)
    k = normal_tensor(2, batch, size, kv_heads, head_dim, dtype=dtype)
    v = normal_tensor(3, batch, size, kv_heads, head_dim, dtype=dtype)
    if size == 1:
        # One key: the gradients of q and k are exactly zero.
        assert torch.equal(attention(q, k, v, segments), v.repeat_interleave(heads // kv_heads, 2))
        return
    assert_as_exact_as(
        lambda *inputs: attention(*inputs, segments),
        lambda *inputs: formula(*inputs, segments),
        (q, k, v),
        3 if path == "triton" and dtype == torch.bfloat16 else roundings,
    )


def test_gradients_are_those_of_finite_differences():
    segments = segments_of([2, 3, 1], [4, 1, 1])
    inputs = [normal_tensor(n, 2, 6, heads, 4).requires_grad_() for n, heads in enumerate((4, 2, 2))]
    assert torch.autograd.gradcheck(lambda *qkv: attention(*qkv, segments), inputs, fast_mode=True)


def test_segments_can_be_prepared_once():
    q, k, v = (normal_tensor(n, 3, 37, heads, 8, dtype=torch.float32) for n, heads in enumerate((4, 2, 2)))
    segments = segments_of(*ODD)
    assert torch.equal(attention(q, k, v, prepare_segments(segments)), attention(q, k, v, segments))


def test_segments_are_runs_of_equal_numbers_within_a_row():
    bounds = prepare_segments(torch.tensor([[0, 0, 1, 1], [1, 1, 0, 1]]))
    assert bounds.starts.tolist() == [0, 2, 4, 6, 7, 8]
    assert bounds.shape == (2, 4)
    assert bounds.keys.tolist() == [[[0, 0, 2, 2], [0, 0, 2, 3]], [[1, 2, 3, 4]] * 2]
    assert bounds.queries.tolist() == [[[0, 1, 2, 3]] * 2, [[2, 2, 4, 4], [2, 2, 3, 4]]]
    assert bounds.longest == 2


def test_a_segment_does_not_see_its_neighbours():
    q, k, v = (normal_tensor(n, 1, 20, 2, 8, dtype=torch.float32) for n in range(3))
    segments = segments_of([6, 9, 5])
    before = attention(q, k, v, segments)
    for x in (q, k, v):
        x[:, :6] = 100.0
        x[:, 15:] = -100.0
    assert torch.equal(attention(q, k, v, segments)[:, 6:15], before[:, 6:15])


def test_heads_that_do_not_group_are_refused():
    q, k = torch.ones(1, 2, 3, 4), torch.ones(1, 2, 2, 4)
    with pytest.raises(ValueError, match="multiple"):
        attention(q, k, k)


@pytest.mark.parametrize(
    ("k", "v", "message"),
    [
        ((1, 3, 2, 16), (1, 3, 1, 16), "twice"),
        ((2, 3, 2, 16), (2, 3, 2, 16), "twice"),
        ((1, 3, 2, 32), (1, 3, 2, 32), "twice"),
        ((3, 2, 16), (3, 2, 16), "twice"),
        ((1, 2, 2, 16), (1, 2, 2, 16), "queries of 3 tokens, keys of 2"),
    ],
)
def test_tensors_that_do_not_fit_together_are_refused(k, v, message):
    q, k, v = torch.ones(1, 3, 2, 16), torch.ones(k), torch.ones(v)
    for segments in (None, torch.zeros(1, 3, dtype=torch.int64)):
        with pytest.raises(ValueError, match=message):
            attention(q, k, v, segments)
    if "tokens" not in message:
        with pytest.raises(ValueError, match=message):
            attention_at(q, k, v, torch.arange(3))


def test_places_and_bounds_of_another_number_of_queries_are_refused():
    q, k = torch.ones(1, 3, 2, 16), torch.ones(1, 5, 2, 16)
    with pytest.raises(ValueError, match=r"bounds are \(2, 1, 4\) and \(2, 1, 5\)"):
        attention_at(q, k, k, torch.arange(4))
    bounds = prepare_segments(torch.zeros(1, 3, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"allowed: \(2, 1, 3\) and \(2, 1, 5\)"):
        attention_within(q, k, k, bounds)


def test_segments_of_another_shape_are_refused():
    q = torch.ones(2, 3, 1, 4)
    with pytest.raises(ValueError, match=r"\(2, 3\)"):
        attention(q, q, q, torch.zeros(2, 4, dtype=torch.int64))


def test_bounds_of_another_batch_are_refused():
    q = torch.ones(2, 3, 1, 16)
    with pytest.raises(ValueError, match=r"\(2, 4\)"):
        attention(q, q, q, prepare_segments(torch.zeros(2, 4, dtype=torch.int64)))


@pytest.mark.parametrize("shape", SHAPES[2:6])
@pytest.mark.parametrize(("dtype", "roundings"), [(torch.float64, 64), (torch.bfloat16, 1.2)])
@pytest.mark.parametrize("prepared", [True, False])
def test_queries_at_some_places_attend_as_they_do_among_all(path, shape, dtype, roundings, prepared):
    batch, size, heads, kv_heads, head_dim, lengths = shape
    segments = None if lengths is None else segments_of(*lengths)
    picks = random.Random(0).sample(range(size), size // 3)
    places = torch.tensor(sorted(picks))
    q = normal_tensor(1, batch, size, heads, head_dim, dtype=dtype)[:, places].contiguous()
    k = normal_tensor(2, batch, size, kv_heads, head_dim, dtype=dtype)
    v = normal_tensor(3, batch, size, kv_heads, head_dim, dtype=dtype)

    def among_all(some_q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        whole = some_q.new_zeros(batch, size, heads, head_dim).index_copy(1, places, some_q)
        return formula(whole, k, v, segments)[:, places]

    given = prepare_segments(segments) if prepared and segments is not None else segments
    if path == "triton" and dtype == torch.bfloat16:
        roundings = 3
    assert_as_exact_as(lambda *inputs: attention_at(*inputs, places, given), among_all, (q, k, v), roundings)


# Blocks, heads that do not fill a tile, segments: borders at every place relative to the tiles.
@pytest.mark.parametrize(
    ("blocks", "head_dim", "lengths", "copied"),
    [
        ((16, 16), 12, (3, 33, 16), False),
        ((16, 32), 8, (1, 1, 47), False),
        ((32, 16), 16, (64,), True),
        ((16, 16), 16, (49,), True),
        # By addresses, though the copy engine could.
        ((32, 16), 16, (64,), False),
        ((16, 16), 16, (3, 33, 13), False),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("path", ["triton"], indirect=True)
def test_tiles_of_any_size_give_the_same(monkeypatch, blocks, head_dim, lengths, copied, dtype):
    from megasbp.kernels.gpu import attention as gpu
    from megasbp.kernels.gpu import attention_backward as gpu_backward
    from megasbp.kernels.gpu.launch import Config

    if not copied:
        for module in (gpu, gpu_backward):
            monkeypatch.setattr(module, "copies_tiles", lambda *tensors: False)
    config, segments = Config(blocks, warps=4, stages=1), segments_of([*lengths, 0])
    size = segments.shape[1]
    q, k, v, grad = (
        normal_tensor(n, 1, size, heads, head_dim, dtype=dtype) for n, heads in enumerate((2, 1, 1, 2))
    )
    bounds = prepare_segments(segments)
    mixed, log_sums = gpu.forward(q, k, v, bounds.keys, config)
    found = gpu_backward.backward(grad, q, k, v, mixed, log_sums, bounds.keys, bounds.queries, config, config)
    leaves = [x.double().requires_grad_() for x in (q, k, v)]
    exact = formula(*leaves, segments)
    gradients = torch.autograd.grad(exact, leaves, grad.double())
    roundings = 3 if dtype == torch.bfloat16 else 64
    for one, other in zip((mixed, *found), (exact.detach(), *gradients), strict=True):
        assert largest_error(one.double(), other) <= roundings * ROUNDING[dtype]
    scores = torch.einsum("bqhe,bke->bhqk", leaves[0], leaves[1][:, :, 0]) / head_dim**0.5
    sums = scores.masked_fill(~bounds.mask, float("-inf")).logsumexp(-1).detach()
    # Products of bf16 are exact in fp32.
    assert largest_error(log_sums.double(), sums) <= 64 * ROUNDING[torch.float32]


# Others are never given one. The interpreter warns; a GPU says nothing.
@pytest.mark.filterwarnings("ignore:divide by zero")
@pytest.mark.parametrize("path", ["triton"], indirect=True)
def test_a_query_that_sees_no_key_gives_zeros():
    q, k, v = (normal_tensor(n, 1, 20, 1, 16, dtype=torch.float32).requires_grad_() for n in range(3))
    keys = torch.zeros(2, 1, 20, dtype=torch.int32)
    keys[1, :, 10:] = 20
    queries = torch.full((2, 1, 20), 10, dtype=torch.int32)
    queries[1] = 20
    mixed, log_sums = torch.ops.megasbp.attention_forward(q, k, v, keys, queries, None)
    assert mixed[:, :10].abs().max() == 0
    assert log_sums[..., :10].tolist() == [[[float("-inf")] * 10]]
    assert log_sums[..., 10:].isfinite().all()
    of_q, of_k, of_v = torch.autograd.grad(mixed.square().sum(), (q, k, v))
    assert of_q[:, :10].abs().max() == 0
    for gradient in (of_q[:, 10:], of_k, of_v):
        assert gradient.isfinite().all()
        assert gradient.abs().max() > 0


def test_gradients_have_the_same_bits_every_time():
    q, k, v = (normal_tensor(n, 1, 40, heads, 16, dtype=torch.float32) for n, heads in enumerate((2, 1, 1)))
    gradients = []
    for _ in range(2):
        leaves = [x.clone().requires_grad_() for x in (q, k, v)]
        gradients.append(torch.autograd.grad(attention(*leaves).square().sum(), leaves))
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


# The interpreter warns; a GPU says nothing.
@pytest.mark.filterwarnings("ignore:overflow")
def test_large_scores_stay_finite():
    q, k, v = (1e4 * normal_tensor(n, 1, 33, 1, 16, dtype=torch.float32) for n in range(3))
    for x in (q, k, v):
        x.requires_grad_()
    mixed = attention(q, k, v)
    assert mixed.isfinite().all()
    for gradient in torch.autograd.grad(mixed.sum(), (q, k, v)):
        assert gradient.isfinite().all()


# PyTorch has none; C++ is given fp32.
@pytest.mark.parametrize(
    ("path", "dtype"),
    [("cpp", torch.float32), ("triton", torch.float32), ("triton", torch.bfloat16)],
    indirect=["path"],
)
def test_operators_are_what_they_say(path, dtype):
    q, k, v = (normal_tensor(n, 1, 5, heads, 16, dtype=dtype) for n, heads in enumerate((2, 1, 1)))
    for x in (q, k, v):
        x.requires_grad_()
    bounds = prepare_segments(segments_of([2, 3, 0]))
    starts = bounds.starts if path == "cpp" else None
    operator = torch.ops.megasbp.attention_forward.default
    library.opcheck(operator, (q, k, v, bounds.keys, bounds.queries, starts))
    # Also of a tensor that is not contiguous.
    turned = q.detach().transpose(1, 2).contiguous().transpose(1, 2)
    library.opcheck(operator, (turned, k, v, bounds.keys, bounds.queries, starts))


# Not compiled, as a CPU does it: its mask is what counts.
@pytest.mark.parametrize("path", ["torch"], indirect=True)
def test_flex_attention_sees_the_same_keys():
    q, k, v = (normal_tensor(n, 3, 37, heads, 16, dtype=torch.float32) for n, heads in enumerate((4, 2, 2)))
    segments = segments_of(*ODD)
    mixed = attend_in_flex(q, k, v, prepare_segments(segments).flex_mask)
    torch.testing.assert_close(mixed, formula(q, k, v, segments))
