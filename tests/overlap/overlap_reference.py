"""Slow, plain references for the C++ core, written from the definitions."""

MASK = 2**64 - 1
TOKEN_KEY = 0x9E3779B97F4A7C15
LENGTH_KEY = 0xA24BAED4963EE407
BASE = 0xD1342543DE82EF95


def mix64(x: int) -> int:
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def shingle_hash(run: list[int]) -> int:
    polynomial = sum(mix64((t + TOKEN_KEY) & MASK) * BASE ** (len(run) - 1 - i) for i, t in enumerate(run))
    return mix64((polynomial + len(run) * LENGTH_KEY) & MASK)


def shingles(tokens, width: int) -> list[tuple[int, ...]]:
    tokens = [int(token) for token in tokens]
    return [tuple(tokens[i : i + width]) for i in range(len(tokens) - width + 1)]


def shingle_set(tokens, width: int) -> set[tuple[int, ...]]:
    if len(tokens) == 0:
        return set()
    return set(shingles(tokens, min(width, len(tokens))))


def jaccard(a, b, width: int) -> float:
    set_a, set_b = shingle_set(a, width), shingle_set(b, width)
    if not set_a or not set_b:
        return 0.0
    return len(set_a & set_b) / len(set_a | set_b)


def repeated_share(tokens, width: int) -> float:
    seen: set[tuple[int, ...]] = set()
    repeated = 0
    runs = shingles(tokens, width)
    for run in runs:
        repeated += run in seen
        seen.add(run)
    return repeated / len(runs) if runs else 0.0


def clusters(documents, width: int, threshold: float) -> list[int]:
    """Connected components of "similarity >= threshold" by comparing every pair."""
    labels = list(range(len(documents)))
    for i in range(len(documents)):
        for j in range(i):
            if labels[i] != labels[j] and jaccard(documents[i], documents[j], width) >= threshold:
                low, high = sorted((labels[i], labels[j]))
                labels = [low if label == high else label for label in labels]
    return labels


SLOTS = 128
ROUNDS = 4


def signature_slots(tokens, width: int, key: int) -> list[int]:
    """Fast Similarity Sketching: every shingle in every round, then every slot's own hash; 64 bits a slot."""

    def hashed(function: int, shingle: int) -> int:
        multiplier = mix64((key + (2 * function + 1) * TOKEN_KEY) & MASK) | 1
        increment = mix64((key + (2 * function + 2) * TOKEN_KEY) & MASK)
        return (multiplier * shingle + increment) & MASK

    hashes = [shingle_hash(list(run)) for run in shingle_set(tokens, width)]
    candidates: list[list[tuple[int, int]]] = [[] for _ in range(SLOTS)]
    for shingle in hashes:
        for r in range(ROUNDS):
            value = hashed(r, shingle)
            candidates[value >> 57].append((r, value & (2**57 - 1)))
        for slot in range(SLOTS):
            candidates[slot].append((ROUNDS, hashed(ROUNDS + slot, shingle) >> 7))
    winners = [min(values) for values in candidates]
    return [
        mix64(((r << 57) + value + (slot + 1) * LENGTH_KEY) & MASK) for slot, (r, value) in enumerate(winners)
    ]


def band_keys(slots: list[int], rows: int) -> list[int]:
    return [mix64(sum(slots[band * rows : (band + 1) * rows]) & MASK) for band in range(SLOTS // rows)]


def coverage(corpus, tokens, width: int) -> float:
    known = {run for document in corpus for run in shingles(document, width)}
    covered = set()
    for i, run in enumerate(shingles(tokens, width)):
        if run in known:
            covered |= set(range(i, i + width))
    return len(covered) / len(tokens) if len(tokens) else 0.0


def longest(corpus, tokens, width: int) -> int:
    known = {run for document in corpus for run in shingles(document, width)}
    best = current = 0
    for run in shingles(tokens, width):
        current = current + 1 if run in known else 0
        best = max(best, current + width - 1 if current else 0)
    return best
