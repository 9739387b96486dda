"""Sampling whose noise has an address: the token drawn for a row is a function of the row alone.

The draw is an exponential race, which is Gumbel-max without its second logarithm: with independent
exponential E[v], argmax p[v] / E[v] is distributed as p. E[v] is a function of (key, seed document, draw,
position, v).
"""

import math

import torch

from .cpu import address as address_of
from .cpu import cpp
from .philox import philox_4x32
from .route import route

# Probabilities in units of 2**-40: sums of integers are exact, so that the cut does not depend on the order
# in which anybody adds. Probabilities below the unit count as nothing.
_UNITS = 2.0**40
# The cut is first found among bins of equal exponent and leading mantissa bits of an fp32 number: 32 bins for
# each factor of two, the first for p = 1, the last for everything below the unit.
_BIN_SHIFT = 18
_ONE_BITS = 0x3F800000 >> _BIN_SHIFT
_BINS = 32 * 40 + 2
# Philox blocks made at a time: bounds the memory of the integer words.
_BLOCKS = 2**17


def sample(
    logits: torch.Tensor, temperature: float, top_p: float, key: int, address: torch.Tensor
) -> torch.Tensor:
    """Draws one token a row from softmax(logits / temperature) cut to its nucleus.

    The nucleus is the shortest prefix of the tokens, in the order of (probability descending, token
    ascending), whose probabilities reach `top_p` of the sum of all. Probabilities are fp32; each is counted
    as a whole number of 2**-40, rounded down, and those are added exactly.

    Args:
        logits: [N, V], any floating type; used in fp32.
        temperature: 0 or more. 0 takes the token of the highest logit, the lowest of equal ones.
        top_p: in (0, 1]; 1 cuts nothing.
        key: of the run, in [0, 2**64).
        address: int64 [N, 3]: seed document, draw and position of each row, each in [0, 2**32) (checked on
            the CPU only: elsewhere looking would wait for the device).

    Returns:
        int64 [N]. A row's token does not depend on the other rows, their number or their order. Of the same
        probabilities every device cuts the same nucleus, and the noise has the same bits up to a rounding of
        the logarithm; a rounding of exp or of the logarithm moves a cut or decides a race once in some
        hundred thousand draws. On one device type and software version the tokens are always the same.

    Raises:
        ValueError: an argument is out of range or the shapes do not fit.
    """
    rows = logits.shape[0]
    if address.shape != (rows, 3):
        raise ValueError(f"address has shape {tuple(address.shape)}; allowed: {(rows, 3)}")
    if not (0 <= temperature < math.inf):
        raise ValueError(f"temperature is {temperature}; allowed: finite numbers from 0 on")
    if not 0 < top_p <= 1:
        raise ValueError(f"top_p is {top_p}; allowed: above 0, up to 1")
    if rows and address.device.type == "cpu" and not 0 <= address.min() <= address.max() < 2**32:
        raise ValueError(f"address holds {address.min()} to {address.max()}; allowed: 0 to 2**32 - 1")
    if not 0 <= key < 2**64:
        raise ValueError(f"key is {key}; allowed: 0 to 2**64 - 1")
    logits = logits.to(torch.float32)
    if temperature == 0:
        return logits.argmax(-1)
    match route(logits):
        case "cpp":
            return _sample_in_cpp(logits, temperature, top_p, key, address)
        case "triton":
            from .gpu import sample as gpu

            # Triton launches on the current device.
            with torch.cuda.device_of(logits):
                return gpu.sample(logits.contiguous(), temperature, top_p, key, address.contiguous())
        case "torch":
            return _sample(logits, temperature, top_p, key, address)


def _sample(
    logits: torch.Tensor, temperature: float, top_p: float, key: int, address: torch.Tensor
) -> torch.Tensor:
    # The largest is taken away first: a small temperature then overflows to -inf, which is right.
    probabilities = torch.softmax((logits - logits.amax(-1, keepdim=True)).div_(temperature), -1)
    race = probabilities / exponential_noise(key, address, logits.shape[1])
    if top_p < 1:
        race.masked_fill_(~nucleus(probabilities, top_p), -1.0)
    return race.argmax(-1)


def _sample_in_cpp(
    logits: torch.Tensor, temperature: float, top_p: float, key: int, address: torch.Tensor
) -> torch.Tensor:
    """Makes noise for the tokens of the nucleus alone."""
    logits, address = logits.contiguous(), address.contiguous()
    tokens = logits.new_empty(len(logits), dtype=torch.int64)
    rows, size = logits.shape
    addresses = address_of(logits), address_of(address), address_of(tokens)
    cpp.sample(rows, size, temperature, top_p, key, *addresses)
    return tokens


def exponential_noise(key: int, address: torch.Tensor, size: int) -> torch.Tensor:
    """Standard exponential numbers of the tokens 0 to size - 1, fp32 [N, size], all positive.

    Token v takes word v % 4 of the Philox block (v // 4, position, draw, seed document).
    """
    blocks = torch.arange(-(-size // 4), device=address.device)
    uniform = torch.empty(len(address), len(blocks), 4, device=address.device)
    rows = max(1, _BLOCKS // len(blocks))
    for part, out in zip(address.split(rows), uniform.split(rows), strict=True):
        seed_document, draw, position = (column[:, None] for column in part.unbind(1))
        words = philox_4x32(key, (blocks, position, draw, seed_document))
        torch.stack([word.to(torch.float32) for word in words], -1, out=out)
    # In (0, 1), finest near zero, where the winners of the race come from.
    noise = uniform.flatten(1).add_(0.5).mul_(-(2.0**-32)).clamp_(min=2.0**-24 - 1).log1p_().neg_()
    return noise[:, :size]


def nucleus(probabilities: torch.Tensor, top_p: float) -> torch.Tensor:
    """Which tokens `sample` draws from: bool [N, V].

    The bin that holds the cut is found from the bins' sums; only its few tokens are sorted.

    Args:
        probabilities: fp32 [N, V], each row's sum about 1.
        top_p: in (0, 1].
    """
    units = (probabilities * _UNITS).to(torch.int64)
    # Sums below 2**53 are exact in float64.
    target = (units.sum(-1, keepdim=True).to(torch.float64) * top_p).ceil_().to(torch.int64)
    bins = (_ONE_BITS - (probabilities.view(torch.int32) >> _BIN_SHIFT)).clamp_(0, _BINS - 1).to(torch.int64)
    sums = units.new_zeros(len(units), _BINS).scatter_add_(1, bins, units)
    reached = sums.cumsum(1)
    cut_bin = (reached < target).sum(1, keepdim=True)
    inside = bins < cut_bin
    before = (reached - sums).gather(1, cut_bin)[:, 0]
    row, token = (bins == cut_bin).nonzero(as_tuple=True)
    # Stable sorts keep tokens of equal probability in ascending order.
    order = probabilities[row, token].argsort(descending=True, stable=True)
    order = order[row[order].argsort(stable=True)]
    row, token = row[order], token[order]
    running = units[row, token].cumsum(0)
    exclusive = running - units[row, token]
    # Rows stand one after the other; each begins at its first token's exclusive sum, its smallest.
    begin = exclusive.new_full((len(units),), 2**62).scatter_reduce_(0, row, exclusive, "amin")
    inside[row, token] = before[row] + exclusive - begin[row] < target[row, 0]
    return inside
