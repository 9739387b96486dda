"""The report as one HTML file that loads nothing: no network, no fonts, no pictures beside it."""

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from megasbp.report import sections
from megasbp.report.markup import Markup, element, join
from megasbp.report.page_script import SCRIPT
from megasbp.report.page_style import STYLE
from megasbp.report.schema import check_results
from megasbp.report.triple_browser import browser
from megasbp.storage import publish_bytes


def page(results: dict[str, Any], software: Mapping[str, str] | None = None, sweep: str | None = None) -> str:
    """The page's HTML; equal results, put together with equal software, give equal bytes.

    Args:
        software: name -> version, of what put the results together.
        sweep: where the page of the run's sweep lies, relative to this one.

    Raises:
        InputError: `results` are not of the documented schema.
    """
    checked = check_results(results)
    made = [
        ("Arms", "arms", sections.arms(checked)),
        ("Tasks", "downstream", sections.downstream(checked)),
        ("Pairs", "pairs", sections.pairs(checked)),
        ("Synthetic text", "synthetic", sections.synthetic_text(checked)),
        ("Read it", "triples", browser(checked)),
        ("Cost", "cost", sections.ledgers(checked)),
        ("Setting", "setting", sections.setting(checked)),
        ("Terms", "terms", sections.glossary()),
    ]
    shown = [(name, anchor, content) for name, anchor, content in made if content]
    links = [element("a", name, href=f"#{anchor}") for name, anchor, _ in shown]
    if sweep is not None:
        links.append(element("a", "Sweep", href=sweep))
    return document(
        f"{checked.name}: megasbp report",
        [
            sections.header(checked),
            element("nav", *links, aria_label="Sections"),
            element("main", sections.verdict_card(checked), join([part for _, _, part in shown])),
            sections.footer(checked, software),
        ],
    )


def document(title: str, parts: list[Markup]) -> str:
    """A page of these parts, with the style and the script of all pages."""
    # The browser itself is told to load nothing and to run this script only, whatever the texts contain.
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", Markup(STYLE)),
    )
    body = element("body", join([*parts, element("script", Markup(SCRIPT))]))
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def write_page(
    results: dict[str, Any],
    path: Path,
    software: Mapping[str, str] | None = None,
    sweep: str | None = None,
) -> None:
    """Publishes `page` as a file.

    Raises:
        InputError: `results` are not of the documented schema.
    """
    publish_bytes(Path(path), page(results, software, sweep).encode())
