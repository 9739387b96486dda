"""The report as a table for the terminal, also written as plain text."""

from io import StringIO
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from megasbp.report import tables, text_tables
from megasbp.report.contamination_table import contamination_table
from megasbp.report.domains import domains_table
from megasbp.report.downstream import downstream_table
from megasbp.report.judge_table import judge_table
from megasbp.report.relation_tables import relation_table
from megasbp.report.schema import Results, check_results
from megasbp.report.topic_tables import topics_table
from megasbp.report.verdict import verdict
from megasbp.storage import publish_bytes

WIDTH = 110
_OUTCOME_STYLES = {"won": "bold green", "undecided": "bold yellow", "lost": "bold red", "unmeasured": "bold"}


def terminal_table(results: dict[str, Any]) -> str:
    """The report as plain text, `WIDTH` columns wide; equal results give equal bytes.

    Raises:
        InputError: `results` are not of the documented schema.
    """
    buffer = StringIO()
    # Nothing of the terminal or the environment may show in the text: no colour, no measured width.
    console = Console(file=buffer, width=WIDTH, color_system=None, force_terminal=False, _environ={})
    print_report(results, console)
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n"


def print_report(results: dict[str, Any], console: Console | None = None) -> None:
    """Prints the report, in colour where the terminal has it.

    Raises:
        InputError: `results` are not of the documented schema.
    """
    report = _report(check_results(results))
    (console or Console()).print(report)


def write_table(results: dict[str, Any], path: Path) -> None:
    """Publishes `terminal_table` as a file."""
    publish_bytes(Path(path), terminal_table(results).encode())


def text_of(table: tables.Table, width: int = WIDTH) -> str:
    """One table as plain text; equal tables give equal bytes."""
    buffer = StringIO()
    console = Console(file=buffer, width=width, color_system=None, force_terminal=False, _environ={})
    console.print(Text(table.title), _rich_table(table))
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n"


def _report(results: Results) -> Group:
    found = verdict(results)
    parts: list[RenderableType] = [
        Text(f"{results.name}   recipe {results.recipe_hash[:12]}", style="dim"),
        Text(""),
        Text(found.headline, style=_OUTCOME_STYLES[found.outcome]),
    ]
    parts += [Text(f"- {detail}") for detail in found.details]
    shown = [
        text_tables.gates_table(results),
        tables.arms_table(results),
        tables.meanings_table(results),
        tables.best_validation_table(results),
        tables.contrasts_table(results),
        tables.data_efficiency_table(results),
        tables.equal_flops_table(results),
        domains_table(results),
        downstream_table(results),
    ]
    if results.pair_value and results.pair_value.tables:
        shown.append(text_tables.pair_value_table(results))
    if results.synthesis:
        shown.append(text_tables.synthesis_table(results))
    if results.packing:
        shown.append(text_tables.packing_table(results))
    if results.relation:
        shown.append(relation_table(results.relation))
    if results.topics:
        shown.append(topics_table(results.topics))
    if results.contamination:
        shown.append(contamination_table(results.contamination))
    if results.judge:
        shown.append(judge_table(results.judge))
    if results.quality:
        shown.append(text_tables.quality_table(results))
    shown += [tables.plans_table(results), tables.flops_table(results)]
    for table in shown:
        if table.rows:
            parts += [Text(""), Text(table.title, style="bold"), _rich_table(table)]
    if results.what_this_run_can_show:
        heading = Text("What this run can and cannot show", style="bold")
        parts += [Text(""), heading, Text(results.what_this_run_can_show)]
    return Group(*parts)


def _rich_table(table: tables.Table) -> RichTable:
    drawn = RichTable(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for position, name in enumerate(table.header):
        words = position < table.text_columns
        drawn.add_column(Text(name), justify="left" if words else "right", overflow="fold")
    for position, row in enumerate(table.rows):
        last = position == len(table.rows) - table.total_rows - 1 and table.total_rows > 0
        # Text objects: in a plain string rich would take square brackets for markup and colons for emoji.
        drawn.add_row(*(Text(cell) for cell in row), end_section=last)
    return drawn
