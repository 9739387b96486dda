import math

import pytest
import torch
from kernel_checks import normal_tensor

from megasbp.kernels import sample as module
from megasbp.kernels.philox import philox_4x32
from megasbp.kernels.sample import exponential_noise, nucleus, sample

KEY = 0x0123456789ABCDEF


# Too many rows for Triton's interpreter; test_sample_in_triton.py has fewer.
pytestmark = pytest.mark.parametrize(
    "path", ["cpp", "torch", *(["triton"] if torch.cuda.is_available() else [])], indirect=True
)


def addresses(rows: int) -> torch.Tensor:
    return torch.stack((torch.arange(rows), torch.arange(rows) % 3, torch.arange(rows) * 7 + 1), 1)


def chi_square(counts: torch.Tensor, probabilities: torch.Tensor) -> float:
    expected = probabilities * counts.sum()
    return ((counts - expected) ** 2 / expected).sum().item()


def nucleus_by_sorting(probabilities: torch.Tensor, top_p: float) -> torch.Tensor:
    """The definition, by one full sort in Python's integers."""
    kept = torch.zeros_like(probabilities, dtype=torch.bool)
    for row, values in enumerate(probabilities.tolist()):
        units = [math.floor(value * 2**40) for value in values]
        target = math.ceil(sum(units) * top_p)
        reached = 0
        for token in sorted(range(len(values)), key=lambda v: (-values[v], v)):
            if reached >= target:
                break
            kept[row, token] = True
            reached += units[token]
    return kept


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.7, 1.0), (1.0, 0.8), (1.5, 0.6)])
def test_tokens_are_distributed_as_the_cut_softmax(temperature, top_p):
    draws, size = 15_000, 13
    logits = normal_tensor(5, 1, size, dtype=torch.float32)
    probabilities = torch.softmax(logits / temperature, -1)
    kept = nucleus_by_sorting(probabilities, top_p)[0]
    address = torch.tensor([[3, 1, 0]]) + torch.arange(draws)[:, None] * torch.tensor([0, 0, 1])
    tokens = sample(logits.expand(draws, size), temperature, top_p, KEY, address)
    counts = torch.bincount(tokens, minlength=size).double()
    assert counts[~kept].sum() == 0
    freedom = int(kept.sum()) - 1
    allowed = (probabilities[0].double() * kept)[kept]
    # Five standard deviations of chi-square above its mean.
    assert chi_square(counts[kept], allowed / allowed.sum()) < freedom + 5 * math.sqrt(2 * freedom)


@pytest.mark.parametrize("varied", [0, 1, 2])
def test_every_part_of_the_address_gives_other_noise_with_the_same_distribution(varied):
    draws = 20_000
    address = torch.ones(draws, 3, dtype=torch.int64)
    address[:, varied] = torch.arange(draws)
    tokens = sample(torch.zeros(draws, 4), 1.0, 1.0, KEY, address)
    counts = torch.bincount(tokens, minlength=4).double()
    # Three degrees of freedom; 30 is exceeded once in 700,000 times.
    assert chi_square(counts, torch.full((4,), 0.25, dtype=torch.float64)) < 30


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("rows", "size"), [(64, 97), (33, 4096), (16, 1000)])
@pytest.mark.parametrize("top_p", [1.0, 0.9])
def test_a_row_draws_the_same_token_alone_in_any_order_and_any_company(rows, size, top_p, threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        logits, address = 3 * normal_tensor(1, rows, size, dtype=torch.float32), addresses(rows)
        together = sample(logits, 0.8, top_p, KEY, address)
        order = torch.randperm(rows, generator=torch.Generator().manual_seed(2), device="cpu")
        assert torch.equal(sample(logits[order], 0.8, top_p, KEY, address[order]), together[order])
        for row in (0, 5, rows - 1):
            one = slice(row, row + 1)
            assert torch.equal(sample(logits[one], 0.8, top_p, KEY, address[one]), together[one])
        others = torch.where(torch.arange(rows)[:, None] % 2 == 0, logits, torch.full_like(logits, -3.0))
        assert torch.equal(sample(others, 0.8, top_p, KEY, address)[::2], together[::2])
    finally:
        torch.set_num_threads(before)


def test_noise_is_the_addressed_word_of_philox():
    address = torch.tensor([[11, 5, 2], [2**32 - 1, 0, 7]])
    noise = exponential_noise(KEY, address, 70)
    for row, (document, draw, position) in enumerate(address.tolist()):
        for token in (0, 1, 6, 69):
            word = int(philox_4x32(KEY, (token // 4, position, draw, document))[token % 4])
            expected = -math.log1p(-(word + 0.5) / 2**32)
            # The word is rounded to fp32 and the logarithm is good to an fp32 unit or two.
            assert noise[row, token].item() == pytest.approx(expected, rel=1e-6)


def test_noise_of_a_token_does_not_depend_on_the_vocabulary():
    assert torch.equal(
        exponential_noise(KEY, addresses(9), 5000)[:, :33], exponential_noise(KEY, addresses(9), 33)
    )


@pytest.mark.parametrize(("rows", "size"), [(64, 97), (32, 4096)])
@pytest.mark.parametrize("threads", [1, 3])
def test_noise_of_a_row_has_the_same_bits_alone_and_among_others(rows, size, threads):
    # Three threads: 32 x 4096 elements would be split at places that are no multiple of a vector.
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        together = exponential_noise(KEY, addresses(rows), size)
        alone = [exponential_noise(KEY, address, size) for address in addresses(rows).split(1)]
        assert torch.equal(torch.cat(alone), together)
    finally:
        torch.set_num_threads(before)


def test_noise_is_positive_and_finite():
    noise = exponential_noise(KEY, addresses(64), 65536)
    assert noise.min() > 0
    assert noise.max() < 17


@pytest.mark.parametrize("top_p", [1e-9, 0.1, 0.5, 0.9, 0.999, 1.0])
@pytest.mark.parametrize("spread", [0.0, 0.1, 2.0, 30.0])
def test_the_nucleus_is_the_shortest_prefix_of_the_sorted_tokens(top_p, spread):
    logits = spread * normal_tensor(7, 5, 301, dtype=torch.float32)
    probabilities = torch.softmax(logits.round(decimals=1), -1)  # rounding makes ties
    assert torch.equal(nucleus(probabilities, top_p), nucleus_by_sorting(probabilities, top_p))


def test_equal_probabilities_are_cut_after_the_lowest_tokens():
    kept = nucleus(torch.full((2, 8), 0.125), 0.5)
    assert kept.tolist() == [[True] * 4 + [False] * 4] * 2


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 0.9), (0.7, 1.0), (1.3, 0.5)])
def test_cpp_and_torch_draw_the_same_tokens(temperature, top_p):
    logits = 2 * normal_tensor(11, 2000, 1003, dtype=torch.float32)
    found = sample(logits, temperature, top_p, KEY, addresses(2000))
    expected = module._sample(logits, temperature, top_p, KEY, addresses(2000))
    # A rounding of the exponential or the logarithm decides a race once in some hundred thousand.
    assert (found != expected).sum() <= 1


def test_a_token_of_probability_zero_is_never_drawn():
    logits = torch.full((256, 50), -math.inf)
    logits[:, 17] = 0.0
    assert (sample(logits, 1.0, 1.0, KEY, addresses(256)) == 17).all()


def test_temperature_zero_takes_the_lowest_of_the_highest_logits():
    logits = torch.tensor([[0.0, 2.0, 1.0, 2.0], [5.0, 5.0, 5.0, 5.0]])
    assert sample(logits, 0.0, 0.9, KEY, addresses(2)).tolist() == [1, 0]


def test_a_tiny_temperature_takes_the_highest_logit():
    logits = normal_tensor(1, 40, 100, dtype=torch.float32) * 100
    assert torch.equal(sample(logits, 1e-30, 0.9, KEY, addresses(40)), logits.argmax(-1))


def test_logits_are_left_as_they_were():
    logits = normal_tensor(1, 4, 10, dtype=torch.float32)
    sample(logits, 0.5, 0.9, KEY, addresses(4))
    assert torch.equal(logits, normal_tensor(1, 4, 10, dtype=torch.float32))


def test_tokens_are_frozen():
    logits = torch.linspace(-1, 1, 50).expand(8, 50)
    # A change here means that corpora already written can no longer be written again.
    assert sample(logits, 1.0, 0.9, KEY, addresses(8)).tolist() == [37, 27, 31, 26, 16, 12, 43, 41]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"temperature": math.nan}, "temperature is nan"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"top_p": 1.5}, "top_p is 1.5"),
        ({"key": 2**64}, "key is"),
        ({"address": torch.zeros(3, 3, dtype=torch.int64)}, r"\(3, 3\)"),
        ({"address": torch.full((2, 3), 2**32)}, "4294967296"),
        ({"address": torch.full((2, 3), -1)}, "-1"),
    ],
)
def test_impossible_arguments_are_refused(change, message):
    arguments = {
        "logits": torch.zeros(2, 4),
        "temperature": 1.0,
        "top_p": 0.9,
        "key": KEY,
        "address": addresses(2),
    }
    with pytest.raises(ValueError, match=message):
        sample(**{**arguments, **change})
