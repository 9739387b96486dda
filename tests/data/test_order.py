"""Sample order: frozen, bijective, uniform over keys, different in each epoch."""

import numpy as np
import pytest
from scipy.stats import chisquare

import megasbp._C as core

MASK = 2**64 - 1
# The keys are fixed, so a test always passes or always fails; a right order fails for one choice in 10,000.
LEAST_PROBABILITY = 1e-4


def reference_hash(key, value):
    def mix(bits):
        bits = (bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9 & MASK
        bits = (bits ^ (bits >> 27)) * 0x94D049BB133111EB & MASK
        return bits ^ (bits >> 31)

    return mix(mix((value + 0x9E3779B97F4A7C15) & MASK) ^ key)


def reference_permutation(size, key):
    if size < 4096:
        table = list(range(size))
        for i in range(size - 1, 0, -1):
            j = reference_hash(key, i) * (i + 1) >> 64
            table[i], table[j] = table[j], table[i]
        return table
    bits = (size - 1).bit_length()
    low_bits = bits // 2
    high_mask, low_mask = (1 << (bits - low_bits)) - 1, (1 << low_bits) - 1
    keys = [reference_hash(key, number) for number in range(8)]

    def encrypt(value):
        high, low = value >> low_bits, value & low_mask
        for even, odd in zip(keys[::2], keys[1::2], strict=True):
            high ^= reference_hash(even, low) & high_mask
            low ^= reference_hash(odd, high) & low_mask
        return high << low_bits | low

    images = []
    for value in range(size):
        image = encrypt(value)
        while image >= size:
            image = encrypt(image)
        images.append(image)
    return images


def permute(size, key, indices=None):
    return core.permute(size, key, np.arange(size) if indices is None else np.array(indices, dtype=np.int64))


def test_hash_is_frozen():
    values = [
        core.keyed_hash(key, value) for key, value in [(0, 0), (0, 1), (1, 0), (MASK, MASK), (2**63, 12345)]
    ]
    assert values == GOLDEN_HASHES


def test_permutations_are_frozen():
    assert permute(10, 42).tolist() == GOLDEN_TABLE
    assert permute(4097, 42, range(8)).tolist() == GOLDEN_NETWORK
    assert permute(2**40 + 1, 42, range(4)).tolist() == GOLDEN_LARGE


def test_epoch_order_and_windows_are_frozen():
    indices = np.array([0, 1, 9_999, 10_000, 10_001, 123_456_789])
    assert core.epoch_order(indices, 10_000, 7).tolist() == GOLDEN_ORDER
    assert core.window_starts(indices, 5_000_123, 512, 7, 8).tolist() == GOLDEN_STARTS


@pytest.mark.parametrize("size", [1, 2, 3, 10, 4095, 4096, 4097, 8191, 8193])
def test_equals_the_plain_reference(size):
    assert permute(size, 2**63 + 5).tolist() == reference_permutation(size, 2**63 + 5)


@pytest.mark.parametrize(
    "size", [*range(1, 70), 127, 128, 129, 4094, 4095, 4096, 4097, 5003, 8191, 8192, 8193, 99_991]
)
def test_is_a_bijection(size):
    for key in (0, 1, MASK):
        assert np.array_equal(np.sort(permute(size, key)), np.arange(size))


@pytest.mark.parametrize("size", [2**31 + 1, 2**45 - 3, 2**62 + 1, 2**63 - 1])
def test_large_sizes_stay_inside_and_apart(size):
    indices = np.random.default_rng(0).integers(0, size, 20_000)
    images = permute(size, 3, np.unique(indices))
    assert len(np.unique(images)) == len(images)
    assert 0 <= images.min() <= images.max() < size


@pytest.mark.parametrize("size", [3, 4])
def test_each_order_of_few_elements_is_equally_likely(size):
    orders = [tuple(permute(size, key)) for key in range(24_000)]
    _, counts = np.unique(orders, axis=0, return_counts=True)
    assert len(counts) == {3: 6, 4: 24}[size]
    assert chisquare(counts).pvalue > LEAST_PROBABILITY


@pytest.mark.parametrize("size", [2, 5, 7, 16, 33, 4095, 4096, 4097, 6001])
@pytest.mark.parametrize("element", ["first", "last"])
def test_place_of_an_element_is_uniform_over_keys(size, element):
    index = {"first": 0, "last": size - 1}[element]
    images = np.array([permute(size, key, [index])[0] for key in range(KEYS[size >= 4096 or size < 100])])
    bins = min(size, 61)
    edges = np.arange(bins + 1) * size // bins
    counts, _ = np.histogram(images, edges - 0.5)
    assert chisquare(counts, np.diff(edges) / size * len(images)).pvalue > LEAST_PROBABILITY


@pytest.mark.parametrize("size", [5, 17, 4096, 4097, 6001])
def test_two_elements_fall_independently(size):
    pairs = [(0, 1), (0, size - 1), (1, size // 2)]
    images = np.array([permute(size, key, np.array(pairs).ravel()) for key in range(10_000)]).reshape(
        -1, 3, 2
    )
    for pair in range(len(pairs)):
        first, second = images[:, pair, 0], images[:, pair, 1]
        before = int((first < second).sum())
        assert chisquare([before, len(images) - before]).pvalue > LEAST_PROBABILITY
        if size >= 4096:
            # In eighths: equal places cannot occur, which lowers the diagonal by less than 1 in 500.
            counts = np.bincount(first * 8 // size * 8 + second * 8 // size, minlength=64)
            assert chisquare(counts).pvalue > LEAST_PROBABILITY


@pytest.mark.parametrize("size", [11, 4099])
def test_neighbouring_epochs_are_independent(size):
    indices = np.array([0, size], dtype=np.int64)
    places = np.array([core.epoch_order(indices, size, key) for key in range(10_000)])
    cells = places[:, 0] * 8 // size * 8 + places[:, 1] * 8 // size
    share = np.bincount(np.arange(size) * 8 // size, minlength=8) / size
    expected = np.outer(share, share).ravel() * len(places)
    assert chisquare(np.bincount(cells, minlength=64), expected).pvalue > LEAST_PROBABILITY


@pytest.mark.parametrize("size", [50, 5000])
def test_each_epoch_is_a_permutation_and_another_one(size):
    epochs = core.epoch_order(np.arange(3 * size), size, 1).reshape(3, size)
    assert np.array_equal(np.sort(epochs, axis=1), np.tile(np.arange(size), (3, 1)))
    for other in (1, 2):
        # A random order has one fixed point on average, whatever the size.
        assert (epochs[0] == epochs[other]).sum() < 10


def test_order_at_an_index_does_not_depend_on_the_batch():
    indices = np.array([7, 12_345, 3, 4_999_999_999, 7])
    together = core.epoch_order(indices, 4500, 9)
    assert together.tolist() == [
        core.epoch_order(indices[i : i + 1], 4500, 9)[0] for i in range(len(indices))
    ]


@pytest.mark.parametrize("tokens", [1000, 1013, 60_000])
def test_windows_of_an_epoch_do_not_overlap(tokens):
    length = 10
    windows = tokens // length
    for epoch in range(3):
        starts = core.window_starts(np.arange(epoch * windows, (epoch + 1) * windows), tokens, length, 5, 6)
        read = (starts[:, None] + np.arange(length)) % tokens
        assert len(np.unique(read)) == windows * length


def test_phase_is_uniform_over_epochs():
    tokens, length = 1000, 1000
    starts = core.window_starts(np.arange(20_000), tokens, length, 5, 6)
    assert chisquare(np.bincount(starts // 20, minlength=50)).pvalue > LEAST_PROBABILITY


@pytest.mark.parametrize(("size", "indices"), [(0, [0]), (-3, [0]), (5, [5]), (5, [-1])])
def test_permutation_refuses_what_is_outside(size, indices):
    with pytest.raises(ValueError, match="elements|is not in"):
        permute(size, 0, indices)


# Keys per size: many where a call is cheap, fewer for long tables.
KEYS = {True: 30_000, False: 6_000}
GOLDEN_HASHES = [
    5197578548964807871,
    15916886550466581944,
    11385487063155714807,
    5066756352113716771,
    12145191862252436387,
]
GOLDEN_TABLE = [0, 2, 8, 5, 3, 1, 4, 9, 7, 6]
GOLDEN_NETWORK = [3599, 1992, 3276, 3989, 369, 3329, 3318, 3552]
GOLDEN_LARGE = [835800841481, 786090044303, 458644723223, 815442761505]
GOLDEN_ORDER = [4366, 3307, 2778, 108, 9861, 8295]
GOLDEN_STARTS = [3003762, 2461554, 2724140, 878380, 3157804, 2210355]
