"""Writes everything the report draws beside the results it reads."""

from pathlib import Path

from megasbp.experiment.clean import SWEEP
from megasbp.experiment.software import SOFTWARE_NAME
from megasbp.report.page import write_page
from megasbp.report.picture import has_curves, write_picture
from megasbp.report.schema import check_results, read_results
from megasbp.report.terminal import terminal_table, write_table
from megasbp.storage import read_json


def write_report(path: Path) -> str:
    """Draws table.txt, report.html and, when there are learning curves, picture.svg beside `path`.

    The page has a link to that of the run's sweep, where there is one.

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
    versions = read_json(software) if software.exists() else None
    write_page(results, folder / "report.html", versions, _sweep_of(folder))
    if has_curves(check_results(results)):
        write_picture(results, folder / "picture.svg")
    return terminal_table(results)


def _sweep_of(folder: Path) -> str | None:
    """The sweep's page as seen from the run's report, or from a partial one's or a combination's folder."""
    links = (f"{up}/{SWEEP}/report.html" for up in ("..", "../.."))
    return next((link for link in links if (folder / link).is_file()), None)
