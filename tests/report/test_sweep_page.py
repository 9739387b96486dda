"""The page of a sweep."""

import json
from pathlib import Path

import pytest
from fixture import fake_results
from test_page import HOSTILE, Reader

from megasbp.errors import InputError
from megasbp.report.sweep_page import sweep_page
from megasbp.report.sweep_table import sweep_table


def write_sweep(folder: Path, *settings: dict) -> Path:
    """A sweep over these settings, SBP's gain growing from one to the next."""
    listed = []
    for number, one in enumerate(settings):
        results = fake_results(gain=0.001 * (number + 1))
        path = folder / f"variant-{number}" / "results.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(results))
        listed.append({"settings": one, "results": f"variant-{number}/results.json"})
    (folder / "sweep.json").write_text(json.dumps({"recipes": listed}))
    return folder / "sweep.json"


def test_every_combination_has_its_interval_its_row_and_its_report(tmp_path):
    path = write_sweep(tmp_path, {"synthesis.temperature": 0.8}, {"synthesis.temperature": 1.0})
    html = sweep_page(path)
    reader = Reader(html)
    assert html == sweep_page(path)
    words = reader.words()
    assert words.count("temperature 0.8") >= 2
    assert "+0.0010" in words
    assert "+0.0020" in words
    links = [attributes["href"] for tag, attributes in reader.tags if tag == "a"]
    assert {"variant-0/report.html", "variant-1/report.html"} <= set(links)
    charts = [attributes["aria-label"] for tag, attributes in reader.tags if tag == "svg"]
    assert any("SBP over baseline" in chart for chart in charts)


def test_html_in_the_settings_stays_text(tmp_path):
    reader = Reader(sweep_page(write_sweep(tmp_path, {"pairing.embedder": HOSTILE})))
    assert [tag for tag, _ in reader.tags if tag in {"img", "script"}] == ["script"]
    assert HOSTILE in reader.words()


def test_a_worth_without_an_interval_is_drawn(tmp_path):
    path = write_sweep(tmp_path, {"pairing.minimum_similarity": 0.9})
    results = json.loads((tmp_path / "variant-0" / "results.json").read_text())
    for table in results["pair_value"]["tables"].values():
        table["worth"] |= {"low": None, "high": None}
    (tmp_path / "variant-0" / "results.json").write_text(json.dumps(results))
    worth = next(iter(results["pair_value"]["tables"].values()))["worth"]["estimate"]
    assert f"{worth:.4f}" in Reader(sweep_page(path)).words()
    (row,) = sweep_table(path).rows
    assert f"{worth:.4f}" in row


def test_a_missing_result_is_named(tmp_path):
    path = write_sweep(tmp_path, {"seeds": [0]})
    (tmp_path / "variant-0" / "results.json").unlink()
    with pytest.raises(InputError, match="variant-0/results.json"):
        sweep_page(path)
