"""Golden vectors of Random123 (kat_vectors, philox4x32 10 rounds) and what is built on the words."""

import math

import pytest
import torch

from megasbp.kernels.philox import normal, philox_4x32, uniform

ONES = 0xFFFFFFFF
GOLDEN = [
    (0, (0, 0, 0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    (2**64 - 1, (ONES, ONES, ONES, ONES), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        0x299F31D0_A4093822,
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("key", "counter", "words"), GOLDEN)
def test_the_words_are_those_of_random123(key, counter, words):
    assert tuple(int(word) for word in philox_4x32(key, counter)) == words


def test_broadcast_counters_give_the_words_of_each_counter_alone():
    columns, rows = torch.arange(5), torch.tensor([[3], [ONES]])
    together = philox_4x32(7, (columns, 1, rows, 2))
    for row in range(2):
        for column in range(5):
            alone = philox_4x32(7, (column, 1, int(rows[row, 0]), 2))
            assert [int(word[row, column]) for word in together] == [int(word) for word in alone]


def test_counters_are_left_as_they_were():
    counters = tuple(torch.arange(4) + offset for offset in range(4))
    philox_4x32(7, counters)
    assert all(torch.equal(word, torch.arange(4) + offset) for offset, word in enumerate(counters))


@pytest.mark.parametrize("key", [-1, 2**64])
def test_a_key_of_more_than_64_bits_is_refused(key):
    with pytest.raises(ValueError, match=r"2\*\*64"):
        philox_4x32(key, (0, 0, 0, 0))


def test_uniform_numbers_are_frozen():
    # From the golden vector: word 0x6627E8D5, its upper 23 bits and a half.
    assert uniform(0, torch.tensor([0])).item() == ((0x6627E8D5 >> 9) + 0.5) / 2**23


def test_uniform_numbers_stay_inside_the_open_interval():
    numbers = uniform(3, torch.arange(2**21))
    assert 0 < numbers.min() < 1e-5
    assert 1 - 1e-5 < numbers.max() < 1
    # The largest of them is an fp32 number, so that rounding cannot carry it to 1.
    assert torch.tensor(2**23 - 0.5, dtype=torch.float32).item() == 2**23 - 0.5


def test_uniform_numbers_fill_their_bins_evenly():
    counts = torch.histc(uniform(11, torch.arange(2**18)), bins=256, min=0, max=1)
    chi_square = ((counts - 1024) ** 2 / 1024).sum().item()
    # 255 degrees of freedom: mean 255, deviation 22.6; five deviations to either side.
    assert 255 - 5 * 22.6 < chi_square < 255 + 5 * 22.6


def test_streams_and_large_indices_are_different_numbers():
    index = torch.arange(64)
    draws = [
        uniform(1, index),
        uniform(1, index, stream=1),
        uniform(2, index),
        uniform(1, index + 2**32),
        uniform(1, index + 2**62),
    ]
    assert len({tuple(draw.tolist()) for draw in draws}) == len(draws)


def test_a_range_of_normal_numbers_is_the_same_range_of_the_whole():
    assert torch.equal(normal(5, torch.arange(100))[40:60], normal(5, torch.arange(40, 60)))


def test_normal_numbers_are_normal():
    numbers = normal(17, torch.arange(2**18)).double()
    count = len(numbers)
    # Five standard errors of mean, variance (2 / n) and fourth moment (96 / n).
    assert abs(numbers.mean()) < 5 / math.sqrt(count)
    assert abs(numbers.square().mean() - 1) < 5 * math.sqrt(2 / count)
    assert abs((numbers**4).mean() - 3) < 5 * math.sqrt(96 / count)


def test_normal_numbers_are_frozen():
    # Box and Muller in Python's own float64 from the golden words; one fp32 rounding apart.
    radius = math.sqrt(-2 * math.log((0x6627E8D5 + 0.5) / 2**32))
    expected = radius * math.cos(2 * math.pi * (0xE169C58D + 0.5) / 2**32)
    assert normal(0, torch.tensor([0])).item() == pytest.approx(expected, rel=2**-23)
