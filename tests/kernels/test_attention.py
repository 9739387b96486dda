import pytest
import torch
from kernel_checks import assert_as_exact_as, normal_tensor

from megasbp.kernels.attention import attention, attention_at, prepare_segments


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


def segments_of(*rows: list[int]) -> torch.Tensor:
    """Each row given by the lengths of its segments; the last one is padding (-1)."""
    numbered = [
        [n for n, length in enumerate(row[:-1]) for _ in range(length)] + [-1] * row[-1] for row in rows
    ]
    return torch.tensor(numbered)


ODD = segments_of([1, 7, 29, 0], [37, 0], [3, 3, 3, 20, 8])
SHAPES = [
    # batch, tokens, query heads, key-value heads, head dimension, segments
    (1, 1, 1, 1, 2, None),
    (1, 1, 2, 1, 4, segments_of([1, 0])),
    (2, 33, 4, 2, 16, None),
    (3, 37, 6, 2, 8, ODD),
    (3, 37, 3, 3, 32, ODD),
    (2, 300, 4, 1, 32, segments_of([150, 100, 50], [10, 290, 0])),
    (2, 5, 4, 2, 16, segments_of([5, 0], [5, 0])),
]


@pytest.mark.parametrize("shape", SHAPES)
# bf16: inputs are cast to fp32; the result is rounded once, and the gradient's parts too.
@pytest.mark.parametrize(
    ("dtype", "roundings"), [(torch.float64, 64), (torch.float32, 64), (torch.bfloat16, 1.2)]
)
def test_value_and_gradients_are_those_of_the_formula(shape, dtype, roundings):
    batch, size, heads, kv_heads, head_dim, segments = shape
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
        roundings,
    )


def test_gradients_are_those_of_finite_differences():
    segments = segments_of([2, 3, 1], [4, 1, 1])
    inputs = [normal_tensor(n, 2, 6, heads, 4).requires_grad_() for n, heads in enumerate((4, 2, 2))]
    assert torch.autograd.gradcheck(lambda *qkv: attention(*qkv, segments), inputs, fast_mode=True)


def test_segments_can_be_prepared_once():
    q, k, v = (normal_tensor(n, 3, 37, heads, 8, dtype=torch.float32) for n, heads in enumerate((4, 2, 2)))
    assert torch.equal(attention(q, k, v, prepare_segments(ODD)), attention(q, k, v, ODD))


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
def test_queries_at_some_places_attend_as_they_do_among_all(shape, dtype, roundings, prepared):
    batch, size, heads, kv_heads, head_dim, segments = shape
    places = torch.randperm(size, generator=torch.Generator().manual_seed(0), device="cpu")[: size // 3].sort().values.to(torch.get_default_device())
    q = normal_tensor(1, batch, size, heads, head_dim, dtype=dtype)[:, places].contiguous()
    k = normal_tensor(2, batch, size, kv_heads, head_dim, dtype=dtype)
    v = normal_tensor(3, batch, size, kv_heads, head_dim, dtype=dtype)

    def among_all(some_q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        whole = some_q.new_zeros(batch, size, heads, head_dim).index_copy(1, places, some_q)
        return formula(whole, k, v, segments)[:, places]

    given = prepare_segments(segments) if prepared and segments is not None else segments
    assert_as_exact_as(lambda *inputs: attention_at(*inputs, places, given), among_all, (q, k, v), roundings)
