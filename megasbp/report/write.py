"""Writes everything the report draws beside the results it reads."""

from pathlib import Path

from megasbp.experiment.software import SOFTWARE_NAME
from megasbp.report.page import write_page
from megasbp.report.picture import has_curves, write_picture
from megasbp.report.schema import check_results, read_results
from megasbp.report.terminal import terminal_table, write_table
from megasbp.storage import read_json


def write_report(path: Path) -> str:
    """Draws table.txt, report.html and, when there are learning curves, picture.svg beside `path`.

    Args:
        path: the run's results.json.

    Returns:
        The table as text.

    Raises:
        InputError: `path` is missing or holds no results of this schema.
    """
    results = read_results(path)
    folder = Path(path).parent
    write_table(results, folder / "table.txt")
    software = folder / SOFTWARE_NAME
    write_page(results, folder / "report.html", read_json(software) if software.exists() else None)
    if has_curves(check_results(results)):
        write_picture(results, folder / "picture.svg")
    return terminal_table(results)
