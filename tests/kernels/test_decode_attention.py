import pytest
import torch
from kernel_checks import ROUNDING, largest_error, normal_tensor

from megasbp.kernels.decode_attention import decode_attention, visible_positions

# Triton has none: a GPU runs PyTorch's.
pytestmark = pytest.mark.parametrize(
    "path", ["cpp", "torch", *(["triton"] if torch.cuda.is_available() else [])], indirect=True
)
SHAPES = [
    # rows, tokens, query heads, key-value heads, head dimension, capacity
    (1, 1, 1, 1, 16, 1),
    (3, 1, 4, 2, 32, 70),
    (2, 5, 6, 2, 64, 33),
    (2, 3, 3, 3, 8, 20),
    (2, 1, 8, 1, 128, 40),
]


def case(shape, dtype):
    rows, tokens, heads, kv_heads, head_dim, capacity = shape
    q = normal_tensor(1, rows, tokens, heads, head_dim, dtype=dtype)
    keys, values = (normal_tensor(n, rows, kv_heads, capacity, head_dim, dtype=dtype) for n in (2, 3))
    generator = torch.Generator("cpu").manual_seed(4)
    positions = torch.randint(capacity, (rows, tokens), generator=generator, device="cpu")
    return q, keys, values, positions.to(q.device)


def attend(q, keys, values, positions):
    group = q.shape[2] // keys.shape[1]
    visible = visible_positions(positions, keys.shape[2], group, q.shape[3], q.dtype)
    return decode_attention(q, keys, values, visible)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("dtype", "roundings"), [(torch.float64, 64), (torch.float32, 64), (torch.bfloat16, 1.1)]
)
def test_values_are_those_of_the_formula(shape, dtype, roundings):
    q, keys, values, positions = case(shape, dtype)
    group = q.shape[2] // keys.shape[1]
    k, v = (x.double().repeat_interleave(group, 1) for x in (keys, values))
    scores = torch.einsum("nthe,nhce->nhtc", q.double(), k) / q.shape[3] ** 0.5
    hidden = torch.arange(keys.shape[2]) > positions[:, None, :, None]
    exact = torch.einsum("nhtc,nhce->nthe", scores.masked_fill(hidden, -torch.inf).softmax(-1), v)
    assert largest_error(attend(q, keys, values, positions).double(), exact) <= roundings * ROUNDING[dtype]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_not_visible_changes_no_bit(dtype):
    q, keys, values, positions = case(SHAPES[1], dtype)
    before = attend(q, keys, values, positions)
    hidden = (torch.arange(keys.shape[2]) > positions)[:, None, :, None]
    assert torch.equal(attend(q, keys + 7 * hidden, values - 9 * hidden, positions), before)


def test_extreme_products_stay_finite():
    q, keys, values, positions = case(SHAPES[1], torch.float32)
    assert attend(1e4 * q, 1e4 * keys, values, positions).isfinite().all()


def test_positions_of_other_rows_are_refused():
    q, keys, values, positions = case(SHAPES[1], torch.float32)
    with pytest.raises(ValueError, match="positions"):
        decode_attention(q, keys, values, positions[:2])


def test_positions_outside_the_cache_are_refused_on_the_cpu():
    for wrong in (-1, 70):
        positions = torch.tensor([[wrong]])
        if positions.device.type == "cpu":
            with pytest.raises(ValueError, match=f"{wrong}.*allowed: 0 to 69"):
                visible_positions(positions, 70, 2, 32, torch.float32)


def test_positions_that_another_cache_has_room_for_are_refused():
    q, keys, values, positions = case(SHAPES[1], torch.float32)
    visible = visible_positions(positions.fill_(69), 70, 2, 32, torch.float32)
    with pytest.raises(ValueError, match=r"69 to 69; allowed: 0 to 68|\(3, 1, 2, 70\)"):
        decode_attention(q, keys[:, :, :69].contiguous(), values[:, :, :69].contiguous(), visible)


@pytest.mark.parametrize(
    "cut",
    [
        lambda q, keys, values: (q[:, :, :3], keys, values),
        lambda q, keys, values: (q, keys[:2], values[:2]),
        lambda q, keys, values: (q, keys[..., :16], values[..., :16]),
        lambda q, keys, values: (q, keys, values[:, :, :69]),
        lambda q, keys, values: (q, keys[0], values[0]),
    ],
    ids=["heads", "rows", "head_dim", "values", "dimensions"],
)
def test_tensors_that_do_not_fit_together_are_refused(cut):
    q, keys, values, positions = case(SHAPES[1], torch.float32)
    visible = visible_positions(positions, 70, 2, 32, torch.float32)
    with pytest.raises(ValueError, match="K dividing H"):
        decode_attention(*(x.contiguous() for x in cut(q, keys, values)), visible)
