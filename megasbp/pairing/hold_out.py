"""Held-out pairs of a source that has none with held-out documents."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def hold_out_targets(table: pa.Table, wanted: int, key: int) -> tuple[pa.Table, pa.Table]:
    """Parts a pair table so that no target of the second part is one of the first.

    Targets are drawn whole, all their pairs with them, in a keyed order until there are `wanted` pairs.

    Args:
        table: a pair table.
        wanted: pairs of the second part, at least 1; there may be more by all but one of the last target.
        key: addresses the draw.

    Returns:
        The pairs that stay and those held out, each in the order of the table.
    """
    _, target, pairs = np.unique(table["target_doc"].to_numpy(), return_inverse=True, return_counts=True)
    order = np.random.Generator(np.random.Philox(key=key)).permutation(len(pairs))
    last = int(np.searchsorted(np.cumsum(pairs[order]), wanted))
    held = np.zeros(len(pairs), dtype=bool)
    held[order[: last + 1]] = True
    mask = pa.array(held[target])
    return table.filter(pc.invert(mask)), table.filter(mask)
