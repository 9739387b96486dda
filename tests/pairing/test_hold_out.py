"""Held-out pairs: whole targets, nothing lost."""

import numpy as np

from megasbp.pairing.hold_out import hold_out_targets
from megasbp.pairing.table import pair_table


def test_targets_are_held_out_whole_and_no_pair_is_lost() -> None:
    generator = np.random.default_rng(0)
    seeds, targets = generator.integers(100, size=500), generator.integers(60, size=500)
    zeros = np.zeros(500)
    table = pair_table(seeds, targets, zeros, zeros, np.arange(500), "test")
    kept, held = hold_out_targets(table, 50, key=3)
    assert not set(kept["target_doc"].to_pylist()) & set(held["target_doc"].to_pylist())
    assert sorted(kept["rank"].to_pylist() + held["rank"].to_pylist()) == list(range(500))
    assert 50 <= held.num_rows < 50 + np.bincount(targets).max()
    assert kept["rank"].to_pylist() == sorted(kept["rank"].to_pylist())
    assert hold_out_targets(table, 50, key=3)[1].equals(held)
    assert not hold_out_targets(table, 50, key=4)[1].equals(held)
