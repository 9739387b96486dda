"""Philox4x32-10: random numbers that are a pure function of a key and a counter.

Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011). No state: element i of a
stream can be made anywhere, in any order, on any device, with the same bits.
"""

import math

import torch

# Multipliers and Weyl constants of the paper, section 3.3 and table 2.
_MULTIPLIER_0, _MULTIPLIER_1 = 0xD2511F53, 0xCD9E8D57
_WEYL_0, _WEYL_1 = 0x9E3779B9, 0xBB67AE85
_ROUNDS = 10
_MASK = 0xFFFFFFFF

Word = torch.Tensor | int


def philox_4x32(
    key: int, counters: tuple[Word, Word, Word, Word]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Four 32-bit random words for each counter.

    Args:
        key: in [0, 2**64); its low half is the first key word of the paper.
        counters: the four 32-bit words of the counter, lowest first: ints, or int64 tensors with values in
            [0, 2**32) that broadcast against each other.

    Returns:
        Four int64 tensors in [0, 2**32), of the counters' broadcast shape.

    Raises:
        ValueError: the key is out of range.
    """
    if not 0 <= key < 2**64:
        raise ValueError(f"key is {key}; allowed: 0 to 2**64 - 1")
    device = next((word.device for word in counters if isinstance(word, torch.Tensor)), None)
    words = [torch.as_tensor(word, dtype=torch.int64, device=device) for word in counters]
    key_0, key_1 = key & _MASK, key >> 32
    # Words are broadcast by the arithmetic itself: in the first rounds most are still small. The second and
    # fourth are whole products, of which only the low halves count: one mask at the end clears them.
    for _ in range(_ROUNDS):
        product_0, product_1 = words[0] * _MULTIPLIER_0, words[2] * _MULTIPLIER_1
        words = [
            _mixed(product_1, words[1], key_0),
            product_1,
            _mixed(product_0, words[3], key_1),
            product_0,
        ]
        key_0, key_1 = (key_0 + _WEYL_0) & _MASK, (key_1 + _WEYL_1) & _MASK
    words = [words[0], words[1] & _MASK, words[2], words[3] & _MASK]
    first, second, third, fourth = torch.broadcast_tensors(*words)
    return first, second, third, fourth


def uniform(key: int, index: torch.Tensor, stream: int = 0) -> torch.Tensor:
    """Uniform numbers of the open interval (0, 1).

    Args:
        key: of the stream, in [0, 2**64).
        index: int64, any shape, values in [0, 2**63): which element of the stream.
        stream: in [0, 2**32): independent streams under one key.

    Returns:
        fp32, shape of `index`: odd multiples of 2**-24, so that neither 0 nor 1 comes up by rounding.
    """
    word, _, _, _ = philox_4x32(key, _address(index, stream))
    return ((word >> 9).to(torch.float32) + 0.5) * 2.0**-23


def normal(key: int, index: torch.Tensor) -> torch.Tensor:
    """Standard normal numbers by Box and Muller, in float64 until the last rounding.

    Args:
        key: of the stream, in [0, 2**64).
        index: int64, any shape, values in [0, 2**63): which element of the stream.

    Returns:
        fp32, shape of `index`; within +-6.7.
    """
    radius_word, angle_word, _, _ = philox_4x32(key, _address(index, stream=0))
    # One word a number: (word + 1/2) / 2**32 lies in (0, 1), so the logarithm is finite.
    radius = ((radius_word.to(torch.float64) + 0.5) * 2.0**-32).log_().mul_(-2.0).sqrt_()
    angle = (angle_word.to(torch.float64) + 0.5).mul_(2.0 * math.pi * 2.0**-32)
    return angle.cos_().mul_(radius).to(torch.float32)


def _address(index: torch.Tensor, stream: int) -> tuple[Word, Word, Word, Word]:
    return index & _MASK, index >> 32, stream, 0


def _mixed(product: torch.Tensor, other: torch.Tensor, key: int) -> torch.Tensor:
    """High half of a 64-bit product ^ other ^ key, low 32 bits.

    The product wraps into the sign of int64; the shift then copies the sign, which the mask takes away.
    """
    high = product >> 32
    fits = torch.broadcast_shapes(high.shape, other.shape) == high.shape
    mixed = high.bitwise_xor_(other) if fits else high ^ other
    return mixed.bitwise_xor_(key).bitwise_and_(_MASK)
