"""The report of a sweep: what every combination of settings gained, as one page that loads nothing."""

from functools import partial
from pathlib import Path
from typing import Any

from megasbp.report import sections
from megasbp.report.charts import Range, figure, interval_chart
from megasbp.report.formats import gain_name
from megasbp.report.markup import Markup, element
from megasbp.report.page import document
from megasbp.report.schema import Results
from megasbp.report.sweep_table import read_variants, sweep_table, value_of


def sweep_page(path: Path) -> str:
    """The page's HTML, with a link to the report of each combination; equal results give equal bytes.

    Args:
        path: the sweep.json; the results of each combination, and its report.html, lie below its folder.

    Raises:
        InputError: a file is missing or not of its schema.
    """
    listed, found = read_variants(path)
    first = found[0]
    title = f"{first.name}: sweep"
    names = list(dict.fromkeys(name for results in found for name in results.contrasts))
    charts = [_chart(name, listed, found) for name in names]
    body = [
        element("header", element("h1", title)),
        element(
            "main",
            sections.section("gains", [element("h2", "Gains"), _note(len(found)), *charts]),
            sections.section(
                "table", [element("h2", "Numbers"), sections.table(sweep_table(path)), _links(listed)]
            ),
        ),
        sections.footer(first),
    ]
    return document(title, body)


def _note(combinations: int) -> Markup:
    words = (
        f"{combinations} combinations, each measured on the same test documents. The best of many looks "
        "better than it is: an interval speaks of one combination, chosen before its loss was seen."
    )
    return element("p", words, class_="soft")


def _chart(name: str, listed: list[dict[str, Any]], found: list[Results]) -> Markup:
    """The intervals of one contrast, a combination a row."""
    ranges, arms = [], ("", "")
    for one, results in zip(listed, found, strict=True):
        contrast = results.contrasts.get(name)
        if contrast is not None:
            arms = contrast.treatment, contrast.reference
            settings = _describe(one["settings"])
            style = f"arm-{contrast.treatment}"
            ranges.append(Range(settings, style, contrast.estimate, contrast.low, contrast.high))
    title = f"Gain of {gain_name(*arms)}"
    label = "gain, nats per byte of held-out text"
    return figure(partial(_draw, ranges, label, title), f"{title}, with its interval.")


def _draw(ranges: list[Range], label: str, title: str, width: int) -> Markup:
    return interval_chart(ranges, width, x_label=label, title=title)


def _describe(settings: dict[str, Any]) -> str:
    return ", ".join(f"{key.rpartition('.')[2]} {value_of(value)}" for key, value in settings.items())


def _links(listed: list[dict[str, Any]]) -> Markup:
    reports = (one["results"].replace("results.json", "report.html") for one in listed)
    items = (
        element("li", element("a", _describe(one["settings"]), href=report))
        for one, report in zip(listed, reports, strict=True)
    )
    return element("div", element("h3", "The report of each"), element("ul", *items))
