"""What a pair is worth over the seeds: the part "pair_value" of results.json."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from megasbp.experiment.statistics.over_seeds import over_seeds

TABLE_TITLES = {"new_target": "new target", "new_seed_and_target": "new seed and target"}
# Difference in results.json -> its name among the contrasts of a table.
_DIFFERENCES = {"worth": "worth", "shuffled_gap": "shuffled"}


def pair_value_results(found: Mapping[int, Mapping[str, dict[str, Any]]]) -> dict[str, Any]:
    """The part "pair_value"; schema in docs/results-schema.md.

    Args:
        found: seed -> name of a table -> facts of `evaluation.pair_value`. A seed may lack a table.
    """
    names = dict.fromkeys(name for tables in found.values() for name in tables)
    return {
        "tables": {
            TABLE_TITLES[name]: _over_seeds({seed: one[name] for seed, one in found.items() if name in one})
            for name in names
        }
    }


def _over_seeds(found: Mapping[int, dict[str, Any]]) -> dict[str, Any]:
    """A table of several seeds, each with its own pairs, as one; by similarity it is the first one's."""
    (first, shown), tables = next(iter(found.items())), list(found.values())
    clusters = min(table["clusters"] for table in tables)
    return {
        "pairs": min(table["pairs"] for table in tables),
        "tokens": min(table["tokens"] for table in tables),
        "losses": {
            name: float(np.mean([table["losses"][name] for table in tables])) for name in shown["losses"]
        },
        **{
            name: over_seeds(
                {seed: table["contrasts"][contrast] for seed, table in found.items()},
                clusters,
                shown["level"],
            )
            for name, contrast in _DIFFERENCES.items()
        },
        "seeds": {
            str(seed): {
                "pairs": table["pairs"],
                "tokens": table["tokens"],
                "losses": table["losses"],
                **{name: table["contrasts"][contrast] for name, contrast in _DIFFERENCES.items()},
            }
            for seed, table in found.items()
        },
        "bins": [
            {
                "low": part["low"],
                "high": part["high"],
                "pairs": part["pairs"],
                "worth": part["contrasts"]["worth"]["estimate"],
            }
            for part in shown["by_similarity"]
        ],
        "bins_seed": first,
    }
