"""`megasbp report` of a run in which nothing may be written."""

import errno
import json
from pathlib import Path

import pytest
from fixture import fake_results

from megasbp.cli import main
from megasbp.report import write


def test_the_table_is_shown_where_the_page_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "results.json").write_text(json.dumps(fake_results()))

    def refused(results: object, path: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    # Root may write anywhere.
    monkeypatch.setattr(write, "write_table", refused)
    assert main(["report", str(tmp_path)]) == 2
    printed = capsys.readouterr()
    assert "SBP beat the baseline" in printed.out
    assert printed.err == (
        f"megasbp: {tmp_path / 'report' / 'table.txt'}: Permission denied; finished stages are kept\n"
    )
