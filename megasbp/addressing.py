"""Keys for addressed randomness: a 64-bit key is a pure function of what the randomness is for."""

import hashlib


def derive_key(seed: int, *address: int | str) -> int:
    """The key of one stream of random numbers.

    Args:
        seed: the run's seed, any integer of up to 64 bits.
        address: what the stream is for, e.g. ("initial weights", "blocks.0.attention.query.weight").

    Returns:
        An integer in [0, 2**64). Frozen: the golden values in tests/test_addressing.py may never change,
        or old checkpoints and corpora could not be reproduced.
    """
    digest = hashlib.blake2b(digest_size=8)
    for part in (seed, *address):
        # The type tag and the length keep ("1",) apart from (1,) and ("a", "b") apart from ("ab",).
        encoded = part.encode() if isinstance(part, str) else str(int(part)).encode()
        digest.update(b"s" if isinstance(part, str) else b"i")
        digest.update(len(encoded).to_bytes(8, "little"))
        digest.update(encoded)
    return int.from_bytes(digest.digest(), "little")
