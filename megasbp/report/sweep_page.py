"""The report of a sweep: what every combination of settings gained, as one page that loads nothing."""

from functools import partial
from pathlib import Path
from typing import Any

from megasbp.report import sections
from megasbp.report.charts import Range, figure, interval_chart
from megasbp.report.formats import gain_name
from megasbp.report.markup import Markup, element
from megasbp.report.page import document
from megasbp.report.sweep_table import Swept, read_swept, table_of_test, table_of_validation, value_of
from megasbp.report.terminal import text_of
from megasbp.storage import publish_bytes

_WIDTH = 180


def write_sweep(path: Path) -> None:
    """Draws table.txt and report.html beside a sweep.json.

    Raises:
        InputError: a file is missing or not of its schema.
    """
    swept = read_swept(path)
    tables = (text_of(table(swept), _WIDTH) for table in (table_of_validation, table_of_test))
    publish_bytes(path.with_name("table.txt"), "\n".join(tables).encode())
    publish_bytes(path.with_name("report.html"), sweep_page(swept).encode())


def sweep_page(swept: Swept) -> str:
    """The page's HTML, with a link to the report of each combination; equal results give equal bytes."""
    title = f"{swept.results[0].name}: sweep"
    charts = [_chart(name, swept) for name in swept.contrasts]
    validation = [
        element("h2", "Choose by these: validation"),
        _note(_words_of_validation(swept)),
        sections.table(table_of_validation(swept)),
    ]
    test = [
        element("h2", "Then read these: test"),
        _note(_words_of_test(swept)),
        sections.table(table_of_test(swept)),
        *charts,
    ]
    body = [
        element("header", element("h1", title)),
        element(
            "main",
            sections.section("validation", validation),
            sections.section("test", test),
            sections.section("reports", [element("h2", "The report of each"), _links(swept)]),
        ),
        sections.footer(swept.results[0]),
    ]
    return document(title, body)


def _words_of_validation(swept: Swept) -> str:
    if swept.same_validation:
        return "Every combination was measured on the same validation documents."
    return (
        "The combinations do not have the same validation documents, or not in the same tokens: gains hold "
        "within a row, and losses of different rows cannot be compared."
    )


def _words_of_test(swept: Swept) -> str:
    measured = (
        "Every combination was measured on the same test documents."
        if swept.same_test
        else "The combinations were not all measured on the same test documents: gains hold within a row, "
        "and losses of different rows cannot be compared."
    )
    return (
        f"{measured} The best of many looks better than it is: an interval speaks of one combination, chosen "
        "before its test loss was seen."
    )


def _note(words: str) -> Markup:
    return element("p", words, class_="soft")


def _chart(name: str, swept: Swept) -> Markup:
    """The intervals of one contrast, a combination a row."""
    ranges = []
    for settings, results in zip(swept.settings, swept.results, strict=True):
        contrast = results.contrasts.get(name)
        if contrast is not None:
            style = f"arm-{contrast.treatment}"
            bounds = contrast.estimate, contrast.low, contrast.high
            ranges.append(Range(_describe(settings), style, *bounds))
    title = f"Gain of {gain_name(*swept.contrasts[name])}"
    label = "gain, nats per byte of test text"
    return figure(partial(_draw, ranges, label, title), f"{title}, with its interval.")


def _draw(ranges: list[Range], label: str, title: str, width: int) -> Markup:
    return interval_chart(ranges, width, x_label=label, title=title)


def _describe(settings: dict[str, Any]) -> str:
    named = ((key.rpartition(".")[2], value) for key, value in settings.items() if value is not None)
    return ", ".join(f"{key} {value_of(value)}" for key, value in named) or "the recipe as it is"


def _links(swept: Swept) -> Markup:
    reports = (place.replace("results.json", "report.html") for place in swept.places)
    items = (
        element("li", element("a", _describe(settings), href=report))
        for settings, report in zip(swept.settings, reports, strict=True)
    )
    return element("ul", *items)
