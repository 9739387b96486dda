"""The sampling of kernels/sample.py, a program a row, without a sort.

The cut is the largest fp32 number such that the probabilities from it on, in whole units, reach the share
asked for. Positive fp32 numbers are in the order of their bits: the number is found by searching those, two
bits a walk over the row. Sums of units are exact, so the cut is that of any other order of adding.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import Config, fitted

# Probabilities that a program works on at a time.
DEFAULT = Config(blocks=(4096,), warps=16, stages=1)
CANDIDATES = (Config((2048,), 8, 1), Config((4096,), 8, 1), Config((8192,), 16, 1))

_UNITS = tl.constexpr(2.0**40)
# Bits of 2**-40, the smallest probability that counts, and of the number behind 1.
_LOWEST, _BEHIND_ONE = tl.constexpr(0x2B800000), tl.constexpr(0x3F800001)


def sample(
    logits: Tensor, temperature: float, top_p: float, key: int, address: Tensor, config: Config = DEFAULT
) -> Tensor:
    """Of `sample` at temperatures above 0; logits are fp32, tensors contiguous."""
    probabilities, units = softmax(logits, temperature, config)
    if top_p == 1:
        return race(probabilities, None, key, address, config)
    # Sums below 2**53 are exact in float64.
    target = (units.to(torch.float64) * top_p).ceil_().to(torch.int64)
    return race(probabilities, cut(probabilities, target, config), key, address, config)


def softmax(logits: Tensor, temperature: float, config: Config = DEFAULT) -> tuple[Tensor, Tensor]:
    """softmax(logits / temperature), and int64 sums of each row in whole units, rounded down."""
    rows, vocabulary = logits.shape
    probabilities, units = torch.empty_like(logits), logits.new_empty(rows, dtype=torch.int64)
    if rows:
        block, warps = fitted(config, vocabulary)
        sample_softmax[(rows,)](
            logits, probabilities, units, vocabulary, temperature, BLOCK=block, num_warps=warps
        )
    return probabilities, units


def cut(probabilities: Tensor, target: Tensor, config: Config = DEFAULT) -> tuple[Tensor, Tensor]:
    """Where the nucleus of each row ends.

    Args:
        target: int64 [N], units that it reaches; at least 1, at most the sum of all.

    Returns:
        int32 [N] twice: bits of its smallest probability, and how many tokens of just that are in it.
    """
    rows, vocabulary = probabilities.shape
    bits, kept = (probabilities.new_empty(rows, dtype=torch.int32) for _ in range(2))
    if rows:
        block, warps = fitted(config, vocabulary)
        sample_cut[(rows,)](probabilities, target, bits, kept, vocabulary, BLOCK=block, num_warps=warps)
    return bits, kept


def race(
    probabilities: Tensor,
    nucleus: tuple[Tensor, Tensor] | None,
    key: int,
    address: Tensor,
    config: Config = DEFAULT,
) -> Tensor:
    """The token of each row, int64 [N], that wins the race in the nucleus of `cut`, or among all."""
    rows, vocabulary = probabilities.shape
    tokens = probabilities.new_empty(rows, dtype=torch.int64)
    if rows:
        block, warps = fitted(config, vocabulary)
        bits, kept = nucleus or (tokens, tokens)
        sample_race[(rows,)](
            probabilities,
            bits,
            kept,
            address,
            tokens,
            vocabulary,
            _signed(key & 0xFFFFFFFF),
            _signed(key >> 32),
            BLOCK=block,
            CUTS=nucleus is not None,
            num_warps=warps,
        )
    return tokens


def _signed(word: int) -> int:
    """The int32 of the same bits: an argument's type would else depend on its size."""
    return word - 2**32 if word >= 2**31 else word


@triton.jit
def sample_softmax(logits_ptr, probabilities_ptr, units_ptr, vocabulary, temperature, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    logits_ptr += row * vocabulary
    probabilities_ptr += row * vocabulary
    column = tl.arange(0, BLOCK)
    maximum = -float("inf")
    total = tl.zeros([BLOCK], tl.float32)
    for start in tl.range(0, vocabulary, BLOCK):
        x = tl.load(logits_ptr + start + column, start + column < vocabulary, other=-float("inf"))
        largest = tl.maximum(maximum, tl.max(x, 0))
        # Nothing but -inf so far: its sum is 0, not exp of a difference of infinities.
        shift = tl.where(largest == -float("inf"), 0.0, largest)
        # The largest is taken away first: a small temperature then overflows to -inf, which is right.
        faded = tl.exp(tl.div_rn(maximum - shift, temperature))
        total = total * faded + tl.exp(tl.div_rn(x - shift, temperature))
        maximum = largest
    whole = tl.sum(total, 0)
    units = tl.zeros([BLOCK], tl.int64)
    for start in tl.range(0, vocabulary, BLOCK):
        inside = start + column < vocabulary
        x = tl.load(logits_ptr + start + column, inside, other=-float("inf"))
        probability = tl.exp(tl.div_rn(x - maximum, temperature)) / whole
        tl.store(probabilities_ptr + start + column, probability, inside)
        units += (probability * _UNITS).to(tl.int64)
    tl.store(units_ptr + row, tl.sum(units, 0))


@triton.jit
def sample_cut(probabilities_ptr, target_ptr, bits_ptr, kept_ptr, vocabulary, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    probabilities_ptr += row * vocabulary
    target = tl.load(target_ptr + row)
    column = tl.arange(0, BLOCK)
    # The sum from `low` on reaches the target; that from `high` on, which is `above`, does not.
    low = tl.full([], _LOWEST, tl.int32)
    high = tl.full([], _BEHIND_ONE, tl.int32)
    above = tl.zeros([], tl.int64)
    while high - low > 1:
        step = (high - low + 3) // 4
        first = tl.zeros([BLOCK], tl.int64)
        second = tl.zeros([BLOCK], tl.int64)
        third = tl.zeros([BLOCK], tl.int64)
        for start in tl.range(0, vocabulary, BLOCK):
            probability = tl.load(probabilities_ptr + start + column, start + column < vocabulary, other=0.0)
            bits = probability.to(tl.int32, bitcast=True)
            units = (probability * _UNITS).to(tl.int64)
            first += tl.where(bits >= low + step, units, 0)
            second += tl.where(bits >= low + 2 * step, units, 0)
            third += tl.where(bits >= low + 3 * step, units, 0)
        a, b, c = tl.sum(first, 0), tl.sum(second, 0), tl.sum(third, 0)
        # They fall: the first that fails is the largest that fails.
        failing = tl.where(a < target, a, tl.where(b < target, b, tl.where(c < target, c, 0)))
        above = tl.maximum(above, failing)
        reaching = (a >= target).to(tl.int32) + (b >= target).to(tl.int32) + (c >= target).to(tl.int32)
        low += reaching * step
        high = tl.minimum(low + step, high)
    unit = (low.to(tl.float32, bitcast=True) * _UNITS).to(tl.int64)
    tl.store(bits_ptr + row, low)
    tl.store(kept_ptr + row, ((target - above + unit - 1) // unit).to(tl.int32))


@triton.jit(do_not_specialize=["key_0", "key_1"])
def sample_race(
    probabilities_ptr,
    bits_ptr,
    kept_ptr,
    address_ptr,
    tokens_ptr,
    vocabulary,
    key_0,
    key_1,
    BLOCK: tl.constexpr,
    CUTS: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    probabilities_ptr += row * vocabulary
    document = tl.load(address_ptr + row * 3)
    draw = tl.load(address_ptr + row * 3 + 1)
    position = tl.load(address_ptr + row * 3 + 2)
    smallest, kept = 0, 0
    if CUTS:
        smallest, kept = tl.load(bits_ptr + row), tl.load(kept_ptr + row)
    column = tl.arange(0, BLOCK)
    best = -1.0
    winner = 0
    seen = 0
    for start in tl.range(0, vocabulary, BLOCK):
        token = start + column
        # Behind the row a number below 0, whose bits are below 0 too: it never races.
        probability = tl.load(probabilities_ptr + token, token < vocabulary, other=-1.0)
        bits = probability.to(tl.int32, bitcast=True)
        if tl.max(bits, 0) >= smallest:
            races = bits >= smallest
            if CUTS:
                # Of equal ones the first take part.
                equal = (bits == smallest).to(tl.int32)
                races &= (equal == 0) | (seen + tl.cumsum(equal, 0) <= kept)
                seen += tl.sum(equal, 0)
            time = probability / _noise(token, position, draw, document, key_0, key_1)
            time = tl.where(races, time, -1.0)
            fastest = tl.max(time, 0)
            first = tl.min(tl.where(time == fastest, token, vocabulary), 0)
            winner = tl.where(fastest > best, first, winner)
            best = tl.maximum(best, fastest)
    tl.store(tokens_ptr + row, winner)


@triton.jit
def _noise(token, position, draw, document, key_0, key_1):
    """Standard exponential numbers of `exponential_noise`."""
    block = (token // 4).to(tl.uint32)
    nothing = block * 0
    words = tl.philox_impl(
        block,
        nothing + position.to(tl.uint32),
        nothing + draw.to(tl.uint32),
        nothing + document.to(tl.uint32),
        key_0.to(tl.uint32, bitcast=True),
        key_1.to(tl.uint32, bitcast=True),
    )
    which = token % 4
    early = tl.where(which == 0, words[0], words[1])
    word = tl.where(which < 2, early, tl.where(which == 2, words[2], words[3]))
    uniform = tl.minimum((word.to(tl.float32) + 0.5) * 2.0**-32, 1 - 2.0**-24)
    # -log(1 - u) as a series where 1 - u would lose digits of u; its ninth term is below a rounding.
    series = 1 / 7 + uniform * (1 / 8)
    series = 1 / 5 + uniform * (1 / 6 + uniform * series)
    series = 1 / 3 + uniform * (1 / 4 + uniform * series)
    series = uniform * (1 + uniform * (1 / 2 + uniform * series))
    return tl.where(uniform < 0.125, series, -tl.log(1 - uniform))
