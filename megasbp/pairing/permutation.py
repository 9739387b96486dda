"""Random pairs: the same seeds and the same targets, with the relation between them destroyed."""

import numpy as np
import pyarrow as pa
from scipy.optimize import linear_sum_assignment

from megasbp.addressing import derive_key
from megasbp.errors import InputError
from megasbp.pairing.table import pair_table

_PASSES = 8
# Above this the exact assignment (cubic time, quadratic memory) is not tried.
_EXACT_ROWS = 2048


def permute_seeds(table: pa.Table, seed: int) -> pa.Table:
    """Pairs each target with a seed that is not its own: row i keeps its target, the seeds are permuted.

    Every document is a seed as often as before and a target as often as before, so that a model tuned on the
    result differs from one tuned on `table` in nothing but the relation.

    Always: the new seed of a row is neither its old seed nor its target. When avoidable, it is also no seed
    of that target in any row of `table`, and no pair occurs twice. A random permutation is repaired by swaps
    between an offending row and a random one of the rows that mend it best; a small table that swaps cannot
    mend is solved as an assignment problem.

    Args:
        table: a pair table of n rows.
        seed: addresses the permutation.

    Returns:
        A pair table of n rows in the same order; similarity and jaccard are NaN (nobody measured them), rank
        is -1, source is "permuted".

    Raises:
        InputError: no such permutation exists; the message says why.
    """
    old_documents, targets = table["seed_doc"].to_numpy(), table["target_doc"].to_numpy()
    # Small numbers instead of ids, so that a pair fits one integer; seeds and targets are numbered together.
    documents, numbers = np.unique(np.concatenate([old_documents, targets]), return_inverse=True)
    old, target = np.split(numbers.astype(np.int64), 2)
    _require_possible(old, target, documents)

    generator = np.random.Generator(np.random.Philox(key=derive_key(seed, "permute seeds")))
    new = old[generator.permutation(len(old))]
    for _ in range(_PASSES):
        if not _repair(new, old, target, generator):
            break
    if _forbidden(new, old, target).any() and len(old) <= _EXACT_ROWS:
        new = _solve(new, old, target)
    left = np.flatnonzero(_forbidden(new, old, target))
    if left.size:
        raise InputError(
            f"pairs: found no other seed for {left.size} of {len(old)} pairs, such as seed_doc "
            f"{old_documents[left[0]]} with target_doc {targets[left[0]]}; lower pairing.maximum_per_seed"
        )
    unknown = np.full(len(new), np.nan, dtype=np.float32)
    return pair_table(documents[new], targets, unknown, unknown, np.full(len(new), -1), "permuted")


def _forbidden(new: np.ndarray, old: np.ndarray, target: np.ndarray) -> np.ndarray:
    return (new == old) | (new == target)


def _costs(new: np.ndarray, old: np.ndarray, target: np.ndarray) -> np.ndarray:
    """int64 [n]: n + 1 for a forbidden seed, plus 1 each for a true pair and for a pair that occurs twice."""
    span = int(target.max(initial=0)) + 1
    pairs = new * span + target
    _, inverse, counts = np.unique(pairs, return_inverse=True, return_counts=True)
    soft = np.isin(pairs, old * span + target).astype(np.int64) + (counts[inverse] > 1)
    return _forbidden(new, old, target) * np.int64(len(new) + 1) + soft


def _repair(new: np.ndarray, old: np.ndarray, target: np.ndarray, generator: np.random.Generator) -> int:
    """One pass over the offending rows; swaps in `new` where that lowers the cost. Returns the swaps made."""
    costs = _costs(new, old, target)
    weight = np.int64(len(new) + 1)
    swaps = 0
    for row in np.flatnonzero(costs).tolist():
        if not costs[row]:
            continue
        held, own = new[row], target[row]
        same_target, same_seed = target == own, new == held
        same_target[row] = same_seed[row] = False
        # For every row r: what the seed new[r] would cost in `row`, and what `held` would cost in r.
        here = weight * ((new == old[row]) | (new == own))
        here += np.isin(new, old[target == own])
        here += np.isin(new, new[same_target])
        there = weight * ((old == held) | (target == held))
        there += np.isin(target, target[old == held])
        there += np.isin(target, target[same_seed])
        change = here + there - costs - costs[row]
        change[row] = 0
        best = change.min()
        if best < 0:
            equals = np.flatnonzero(change == best)
            other = equals[generator.integers(len(equals))]
            new[row], new[other] = new[other], held
            costs[row], costs[other] = here[other], there[other]
            swaps += 1
    return swaps


def _solve(new: np.ndarray, old: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The permutation of `new` with the fewest forbidden seeds, then with the fewest true pairs."""
    span = int(target.max()) + 1
    pairs = new[None, :] * span + target[:, None]
    cost = np.isin(pairs, old * span + target).astype(np.float64)
    forbidden = (new[None, :] == old[:, None]) | (new[None, :] == target[:, None])
    _, column = linear_sum_assignment(cost + forbidden * (len(new) + 1))
    return new[column]


def _require_possible(old: np.ndarray, target: np.ndarray, documents: np.ndarray) -> None:
    """Raises InputError unless an allowed permutation exists.

    By Hall's theorem it exists unless some set of rows has fewer allowed seeds than rows. A row forbids its
    seed and its target only, so a set of rows whose forbidden documents have nothing in common allows every
    seed; left are the rows that forbid one document, and the rows that forbid the same two.
    """
    n = len(old)
    if n < 2:
        raise InputError(f"pairs: {n} pairs cannot be permuted, at least 2 are needed; give more documents")
    used = np.bincount(old, minlength=len(documents))
    forbidding = used + np.bincount(target[target != old], minlength=len(documents))
    excess = np.where(used > 0, forbidding + used - n, 0)
    worst = int(np.argmax(excess))
    if excess[worst] > 0:
        raise InputError(
            f"pairs: document {documents[worst]} is the seed of {used[worst]} of {n} pairs and may be the "
            f"new seed of only {n - forbidding[worst]}; lower pairing.maximum_per_seed or give more documents"
        )
    low, high = np.minimum(old, target), np.maximum(old, target)
    couples, counts = np.unique(np.stack([low, high]), axis=1, return_counts=True)
    excess = np.where(couples[0] != couples[1], counts + used[couples[0]] + used[couples[1]] - n, 0)
    worst = int(np.argmax(excess))
    if excess[worst] > 0:
        one, two = documents[couples[:, worst]]
        raise InputError(
            f"pairs: documents {one} and {two} are paired with each other in {counts[worst]} of {n} pairs "
            "and too few other seeds exist for them; give more documents"
        )
