"""Tensors of more than 2**31 elements: their last rows are what they are alone, at other addresses."""

import pytest
import torch
from kernel_checks import normal_tensor

pytest.importorskip("triton", reason="needs triton")

from megasbp.kernels.attention import attention
from megasbp.kernels.cross_entropy import cross_entropy
from megasbp.kernels.paged_attention import paged_attention, write_pages
from megasbp.kernels.qk_norm_rope import qk_norm_rope
from megasbp.kernels.rms_norm import add_rms_norm, rms_norm
from megasbp.kernels.rope import rotate, rotation_table
from megasbp.kernels.sample import sample
from megasbp.kernels.swiglu import swiglu

WIDTH, HEADS, HEAD_DIM = 4096, 32, 128
# Attention's tensors and gradients are ten of 4 GiB.
GIB = 60
HAS_ROOM = torch.cuda.is_available() and torch.cuda.get_device_properties(0).total_memory >= GIB * 2**30
NEEDS_GPU = f"needs a GPU with {GIB} GiB; Triton's interpreter takes hours"
SIZES = [2**15, pytest.param(2**31, marks=pytest.mark.skipif(not HAS_ROOM, reason=NEEDS_GPU))]
pytestmark = pytest.mark.parametrize("path", ["triton"], indirect=True)


def rows_of(size: int) -> torch.Tensor:
    """bf16 [rows, WIDTH] of a little more than `size` numbers, the last two rows alone not zero."""
    rows = torch.zeros(size // WIDTH + 2, WIDTH, dtype=torch.bfloat16)
    rows[-2:] = normal_tensor(1, 2, WIDTH, dtype=torch.bfloat16)
    return rows


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "kernel",
    [
        lambda x: rms_norm(x, torch.ones(WIDTH), 1e-6),
        lambda x: add_rms_norm(x, x, torch.ones(WIDTH), 1e-6)[1],
        lambda x: swiglu(x, x),
        lambda x: cross_entropy(x, torch.full((len(x),), 7), reduction="none")[:, None],
    ],
    ids=["rms_norm", "add_rms_norm", "swiglu", "cross_entropy"],
)
def test_last_rows_are_as_they_are_alone(kernel, size):
    x = rows_of(size).requires_grad_()
    alone = x.detach()[-2:].clone().requires_grad_()
    found, expected = kernel(x), kernel(alone)
    assert torch.equal(found[-2:], expected)
    grad = torch.zeros_like(found)
    grad[-2:] = normal_tensor(2, *expected.shape, dtype=expected.dtype)
    found.backward(grad)
    expected.backward(grad[-2:].clone())
    assert torch.equal(x.grad[-2:], alone.grad)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("normalised", [False, True], ids=["rope", "qk_norm_rope"])
def test_last_heads_are_as_they_are_alone(size, normalised):
    x = rows_of(size).view(1, -1, HEADS, HEAD_DIM).requires_grad_()
    alone = x.detach()[:, -2:].clone().requires_grad_()
    weight = torch.ones(HEAD_DIM)

    def turned(x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        table = rotation_table(positions, HEAD_DIM, 10_000.0)
        k = x.detach()[:, :, :1].contiguous()
        if normalised:
            return qk_norm_rope(x, k, weight, weight, table, 1e-6)[0]
        return rotate(x, k, table)[0]

    positions = torch.arange(x.shape[1])[None] % 4096
    found, expected = turned(x, positions), turned(alone, positions[:, -2:])
    assert torch.equal(found[:, -2:], expected)
    grad = torch.zeros_like(found)
    grad[:, -2:] = normal_tensor(2, *expected.shape, dtype=expected.dtype)
    found.backward(grad)
    expected.backward(grad[:, -2:].clone())
    assert torch.equal(x.grad[:, -2:], alone.grad)


@pytest.mark.parametrize("size", SIZES)
def test_the_last_segment_attends_as_it_does_alone(size):
    # Few heads, for the interpreter; the rows that are not zero are the last 16 tokens.
    x = rows_of(size).view(1, -1, 4, HEAD_DIM)
    tensors = [(x * factor).requires_grad_() for factor in (1, 2, 3)]
    alone = [x.detach()[:, -16:].clone().requires_grad_() for x in tensors]
    segments = torch.arange(x.shape[1])[None] // 64
    found, expected = attention(*tensors, segments, "triton"), attention(*alone, None, "triton")
    assert torch.equal(found[:, -16:], expected)
    grad = torch.zeros_like(found)
    grad[:, -16:] = normal_tensor(2, *expected.shape, dtype=expected.dtype)
    found.backward(grad)
    expected.backward(grad[:, -16:].clone())
    for one, other in zip(tensors, alone, strict=True):
        assert torch.equal(one.grad[:, -16:], other.grad)


@pytest.mark.parametrize("size", SIZES)
def test_the_last_pages_are_written_and_read_as_they_are_alone(size):
    page, kv_heads = 16, 2
    pages = rows_of(size).view(-1, page, kv_heads, HEAD_DIM)
    alone = pages[-2:].clone()
    q, new = normal_tensor(2, 1, 4, HEAD_DIM).bfloat16(), normal_tensor(3, 1, kv_heads, HEAD_DIM).bfloat16()
    results = []
    for keys in (pages, alone):
        values = keys.clone()
        last = len(keys) - 1
        write_pages(keys, values, new, 2 * new, torch.tensor([last * page + 5]))
        assert torch.equal(keys[-1, 5], new[0])
        assert torch.equal(values[-1, 5], 2 * new[0])
        table = torch.tensor([[last, last - 1]], dtype=torch.int32)
        results.append(paged_attention(q, keys, values, table, torch.tensor([2 * page], dtype=torch.int32)))
    assert torch.equal(*results)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("top_p", [0.9, 1.0])
def test_the_last_rows_draw_the_tokens_that_they_draw_alone(size, top_p):
    logits = rows_of(size).float()
    address = torch.arange(len(logits))[:, None] % 7 + torch.arange(3)
    found = sample(logits, 1.0, top_p, 1, address)
    assert torch.equal(found[-2:], sample(logits[-2:].clone(), 1.0, top_p, 1, address[-2:]))
