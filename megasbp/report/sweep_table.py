"""What a sweep found, a row for each combination of its settings: on validation data, and on test data."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from megasbp.report.formats import (
    NOTHING,
    arm_name,
    arms_in_order,
    gain_name,
    interval,
    interval_text,
    number,
    share,
    signed,
)
from megasbp.report.schema import Contrast, Results, check_results, read_results
from megasbp.report.tables import Table
from megasbp.storage import read_json


@dataclass(frozen=True)
class Swept:
    """A sweep.json and the results of its combinations.

    Attributes:
        settings: of each combination, key -> value; None where its recipe leaves the setting out.
        places: of each results.json, relative to the sweep's folder.
        results: of each combination.
    """

    settings: list[dict[str, Any]]
    places: list[str]
    results: list[Results]

    @property
    def same_test(self) -> bool:
        """Whether the results say the same of the test documents, but for how they are cut into tokens."""
        sizes = [one.corpus.splits.get("test") for one in self.results]
        return len({(size.documents, size.bytes) if size else None for size in sizes}) == 1

    @property
    def same_validation(self) -> bool:
        """Whether they say the same of the validation documents and of their tokens."""
        sizes = [one.corpus.splits.get("validation") for one in self.results]
        return all(size == sizes[0] for size in sizes)

    @property
    def contrasts(self) -> dict[str, tuple[str, str]]:
        """Name -> treatment and reference, of every contrast that one of them has."""
        return {
            name: (one.treatment, one.reference)
            for results in self.results
            for name, one in results.contrasts.items()
        }


def read_swept(path: Path) -> Swept:
    """The combinations of a sweep.json.

    Raises:
        InputError: a file is missing or not of its schema.
    """
    listed = read_json(path)["recipes"]
    places = [one["results"] for one in listed]
    results = [check_results(read_results(path.parent / place)) for place in places]
    return Swept([one["settings"] for one in listed], places, results)


def table_of_validation(swept: Swept) -> Table:
    """What settings are chosen by: gains on validation data, the losses of the arms, the documents kept."""
    arms = arms_in_order({arm for results in swept.results for arm in results.arms})
    contrasts = swept.contrasts.values()
    rows = [
        [
            *(_gain_text(results, *names) for names in contrasts),
            *(_loss_text(results, arm) for arm in arms),
            _kept(results),
        ]
        for results in swept.results
    ]
    header = [*(gain_name(*names) for names in contrasts), *map(arm_name, arms), "Kept"]
    return _table(
        swept,
        "Validation: gains and losses at the end of the budget (at the lowest loss), nats per token",
        header,
        rows,
        "Means over the seeds. A gain is the second arm's loss less the first one's. Kept: the share of "
        "SBP's documents that its filters accepted.",
    )


def table_of_test(swept: Swept) -> Table:
    """What is read once the settings are chosen: the baseline, every contrast, a pair's worth."""
    rows = [
        [
            _test_loss(results),
            *(_contrast(results.contrasts.get(name)) for name in swept.contrasts),
            _worth(results),
        ]
        for results in swept.results
    ]
    return _table(
        swept,
        "Test: loss of the baseline and gains in nats per byte, worth of a pair in nats per token",
        ["Baseline", *(gain_name(*names) for names in swept.contrasts.values()), "Worth of a pair"],
        rows,
        "",
    )


def value_of(value: Any) -> str:
    """A setting's value as one types it; a dash where there is none."""
    if value is None:
        return NOTHING
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _table(swept: Swept, title: str, header: list[str], rows: Sequence[list[str]], note: str) -> Table:
    keys = list(swept.settings[0])
    settings = ([value_of(one[key]) for key in keys] for one in swept.settings)
    whole = [[*own, *row] for own, row in zip(settings, rows, strict=True)]
    return Table(title, [*keys, *header], whole, note, text_columns=len(keys))


def _losses(results: Results, arm: str) -> tuple[float, float] | None:
    """Mean validation losses of an arm's seeds: at the end, and at the lowest; None where one has none."""
    seeds = list(results.arms[arm].seeds.values()) if arm in results.arms else []
    ends = [one.final_validation_loss for one in seeds if one.final_validation_loss is not None]
    lowest = [one.best_validation_loss for one in seeds if one.best_validation_loss is not None]
    if not seeds or min(len(ends), len(lowest)) < len(seeds):
        return None
    return fmean(ends), fmean(lowest)


def _loss_text(results: Results, arm: str) -> str:
    losses = _losses(results, arm)
    return NOTHING if losses is None else "{} ({})".format(*map(number, losses))


def _gain_text(results: Results, treatment: str, reference: str) -> str:
    first, second = _losses(results, treatment), _losses(results, reference)
    if first is None or second is None:
        return NOTHING
    return "{} ({})".format(*(signed(there - here) for here, there in zip(first, second, strict=True)))


def _test_loss(results: Results) -> str:
    test = results.arms["baseline"].test
    return number(test.estimate if test else None)


def _contrast(contrast: Contrast | None) -> str:
    if contrast is None:
        return NOTHING
    return f"{signed(contrast.estimate)} ({interval(contrast.low, contrast.high, sign=True)})"


def _worth(results: Results) -> str:
    tables = results.pair_value.tables if results.pair_value else {}
    return interval_text(next(iter(tables.values())).worth) if tables else NOTHING


def _kept(results: Results) -> str:
    return share(results.synthesis["sbp"].acceptance, 0) if "sbp" in results.synthesis else NOTHING
