import pytest
import torch
from kernel_checks import ROUNDING, largest_error, normal_tensor
from torch import library

from megasbp.kernels.paged_attention import paged_attention, write_pages

# Query heads, key-value heads, head dimension, tokens of a page, lengths: none, one, beside a page's end,
# beside the 64 tokens of a step and the 512 of a part.
CASES = [
    (1, 1, 16, 1, (1,)),
    (4, 2, 32, 16, (0, 1, 16, 17, 70)),
    (3, 3, 24, 7, (20, 64, 65)),
    (6, 2, 128, 64, (513, 3)),
    (34, 2, 8, 256, (512, 1100)),
]
TYPES = [(torch.float64, 64), (torch.float32, 64), (torch.bfloat16, 2)]


def case(sizes, dtype):
    heads, kv_heads, head_dim, page, lengths = sizes
    lengths = torch.tensor(lengths, dtype=torch.int32)
    table, pages = page_table(lengths, page)
    q = normal_tensor(1, len(lengths), heads, head_dim, dtype=dtype)
    keys, values = (normal_tensor(n, pages, page, kv_heads, head_dim, dtype=dtype) for n in (2, 3))
    return q, keys, values, table, lengths


def page_table(lengths: torch.Tensor, page: int) -> tuple[torch.Tensor, int]:
    """Pages dealt out in no order, one of which nobody has; entries that are not used lie outside."""
    counts = [-(-length // page) for length in lengths.tolist()]
    generator = torch.Generator().manual_seed(1)
    dealt = iter(torch.randperm(sum(counts) + 1, generator=generator, device="cpu").tolist())
    table = torch.full((len(lengths), max(counts) + 1), 2**30, dtype=torch.int32)
    for row, count in zip(table, counts, strict=True):
        row[:count] = torch.tensor([next(dealt) for _ in range(count)], dtype=torch.int32)
    return table, sum(counts) + 1


def formula(q, key_pages, value_pages, table, lengths):
    """In float64, a sequence at a time."""
    mixed = torch.zeros(q.shape, dtype=torch.float64)
    group = q.shape[1] // key_pages.shape[2]
    for row, length in enumerate(lengths.tolist()):
        if length:
            used = table[row, : -(-length // key_pages.shape[1])].long()
            k, v = (
                pages[used].flatten(0, 1)[:length].double().repeat_interleave(group, 1)
                for pages in (key_pages, value_pages)
            )
            scores = torch.einsum("he,the->ht", q[row].double(), k) / q.shape[2] ** 0.5
            mixed[row] = torch.einsum("ht,the->he", scores.softmax(-1), v)
    return mixed


@pytest.mark.parametrize("sizes", CASES)
# fp32: sums of up to 1,100 terms. bf16: the weights and the result are rounded.
@pytest.mark.parametrize(("dtype", "roundings"), TYPES)
def test_values_are_those_of_the_formula(sizes, dtype, roundings):
    arguments = case(sizes, dtype)
    found = paged_attention(*arguments)
    assert found.dtype == dtype
    assert largest_error(found.double(), formula(*arguments)) <= roundings * ROUNDING[dtype]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_no_sequence_reaches_may_be_anything(dtype):
    q, keys, values, table, lengths = case(CASES[1], dtype)
    before = paged_attention(q, keys, values, table, lengths)
    reached = torch.zeros(keys.shape[:2], dtype=torch.bool)
    for row, length in zip(table, lengths.tolist(), strict=True):
        for token in range(length):
            reached[row[token // 16], token % 16] = True
    keys, values = (x.masked_fill(~reached[..., None, None], torch.nan) for x in (keys, values))
    assert torch.equal(paged_attention(q, keys, values, table, lengths), before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
# PyTorch's sums follow the widest table.
@pytest.mark.parametrize("path", ["triton"], indirect=True)
def test_the_bits_of_a_sequence_depend_on_itself_alone(dtype):
    q, keys, values, table, lengths = case(CASES[4], dtype)
    together = paged_attention(q, keys, values, table, lengths)
    # Alone, with a narrower table, and with its pages elsewhere.
    generator = torch.Generator().manual_seed(9)
    moved = torch.randperm(len(keys), generator=generator, device="cpu").to(table.device)
    place = moved.argsort().to(torch.int32)
    one = slice(0, 1)
    alone = paged_attention(q[one], keys[moved], values[moved], place[table[one, :2].long()], lengths[one])
    assert torch.equal(alone, together[one])


def test_an_empty_lane_is_zero():
    q, keys, values, table, lengths = case(CASES[1], torch.float32)
    assert paged_attention(q, keys, values, table, lengths)[0].abs().sum() == 0
    assert paged_attention(q, keys, values, table, torch.zeros_like(lengths)).abs().sum() == 0


def test_no_lanes_are_no_lanes():
    q, keys, values, table, lengths = case(CASES[1], torch.float32)
    assert paged_attention(q[:0], keys, values, table[:0], lengths[:0]).shape == (0, 4, 32)


def test_extreme_scores_stay_finite():
    q, keys, values, table, lengths = case(CASES[1], torch.float32)
    assert paged_attention(1e4 * q, 1e4 * keys, values, table, lengths).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_new_tokens_are_written_into_their_pages_and_nothing_else_is(dtype):
    keys, values = (normal_tensor(n, 3, 5, 2, 24, dtype=dtype) for n in (1, 2))
    k, v = (normal_tensor(n, 4, 2, 24, dtype=dtype) for n in (3, 4))
    slots = torch.tensor([14, -1, 0, 6])
    expected = [x.clone() for x in (keys, values)]
    for pages, new in zip(expected, (k, v), strict=True):
        pages[2, 4], pages[0, 0], pages[1, 1] = new[0], new[2], new[3]
    write_pages(keys, values, k, v, slots)
    assert torch.equal(keys, expected[0])
    assert torch.equal(values, expected[1])


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_operators_are_what_they_say(dtype):
    arguments = case(CASES[1], dtype)
    library.opcheck(torch.ops.megasbp.paged_attention.default, arguments)
    keys, values = arguments[1:3]
    new = (keys[0, :2].clone(), values[0, :2].clone(), torch.tensor([3, -1]))
    library.opcheck(torch.ops.megasbp.write_pages.default, (keys, values, *new))


def refused(message: str, **change: torch.Tensor) -> None:
    names = ("q_NHE", "key_pages_PAKE", "value_pages_PAKE", "page_table", "lengths")
    arguments = dict(zip(names, case(CASES[1], torch.float32), strict=True))
    with pytest.raises(ValueError, match=message):
        paged_attention(**{**arguments, **change})


def test_arguments_that_do_not_fit_are_refused():
    q, keys, _, table, lengths = case(CASES[1], torch.float32)
    refused(r"\(5, 3, 32\)", q_NHE=q[:, :3])
    refused("bfloat16", q_NHE=q.bfloat16())
    refused("value pages", value_pages_PAKE=keys[:2])
    refused("contiguous", key_pages_PAKE=keys.transpose(0, 1).contiguous().transpose(0, 1))
    refused("page_table is torch.int64", page_table=table.long())
    refused("lengths are torch.int64", lengths=lengths.long())
    if q.device.type == "cpu":
        refused(r"-1 to -1; allowed: 0 to 96", lengths=torch.full_like(lengths, -1))
        refused(r"97 to 97; allowed: 0 to 96", lengths=torch.full_like(lengths, 97))
        refused(r"pages in use are 1 to 99", page_table=table.masked_fill(table == 0, 99))


def test_slots_behind_the_pages_are_refused_on_the_cpu():
    pages, new = torch.ones(2, 4, 1, 8), torch.ones(1, 1, 8)
    slots = torch.tensor([8])
    if slots.device.type == "cpu":
        with pytest.raises(ValueError, match="slot 8"):
            write_pages(pages, pages.clone(), new, new, slots)
    with pytest.raises(ValueError, match="keys"):
        write_pages(pages, pages.clone(), new[:, :, :4], new, slots)
