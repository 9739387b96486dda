"""What a sweep found, a row for each combination of its settings."""

import json
from pathlib import Path
from typing import Any

from megasbp.report.formats import interval_text
from megasbp.report.schema import Contrast, Results, check_results, read_results
from megasbp.report.tables import Table
from megasbp.storage import read_json


def sweep_table(path: Path) -> Table:
    """The table of a sweep.json: settings, the baseline, every contrast, a pair's worth, documents kept.

    Raises:
        InputError: a file is missing or not of its schema.
    """
    listed, found = read_variants(path)
    keys = list(listed[0]["settings"])
    names = list(dict.fromkeys(name for results in found for name in results.contrasts))
    header = [*keys, "Baseline", *names, "Worth of a pair", "Kept"]
    rows = [
        [
            *(value_of(one["settings"][key]) for key in keys),
            _baseline(results),
            *(_contrast(results.contrasts.get(name)) for name in names),
            _worth(results),
            _kept(results),
        ]
        for one, results in zip(listed, found, strict=True)
    ]
    title = "Sweep: test loss of the baseline and gains in nats per byte, worth in nats per token"
    return Table(title, header, rows, text_columns=len(keys))


def _baseline(results: Results) -> str:
    test = results.arms["baseline"].test
    return "–" if test is None else f"{test.estimate:.4f}"


def read_variants(path: Path) -> tuple[list[dict[str, Any]], list[Results]]:
    """The entries of a sweep.json, "settings" and "results" (a path beside it), and the results of each.

    Raises:
        InputError: a file is missing or not of its schema.
    """
    listed = read_json(path)["recipes"]
    return listed, [check_results(read_results(path.parent / one["results"])) for one in listed]


def value_of(value: Any) -> str:
    """A setting's value as one types it."""
    return value if isinstance(value, str) else json.dumps(value)


def _contrast(contrast: Contrast | None) -> str:
    if contrast is None:
        return "–"
    return f"{contrast.estimate:+.4f} ({contrast.low:+.4f} to {contrast.high:+.4f})"


def _worth(results: Results) -> str:
    tables = results.pair_value.tables if results.pair_value else {}
    if not tables:
        return "–"
    worth = next(iter(tables.values())).worth
    return interval_text(worth)


def _kept(results: Results) -> str:
    if "sbp" not in results.synthesis:
        return "–"
    return f"{results.synthesis['sbp'].acceptance:.0%}"
