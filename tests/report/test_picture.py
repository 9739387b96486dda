"""The picture for a README."""

from xml.etree import ElementTree

import pytest
from fixture import fake_results

from megasbp.errors import InputError
from megasbp.report.picture import write_picture
from megasbp.report.write import write_report
from megasbp.storage import publish_json


def test_the_svg_is_small_well_formed_and_deterministic(tmp_path):
    write_picture(fake_results(), tmp_path / "a.svg")
    write_picture(fake_results(), tmp_path / "b.svg")
    content = (tmp_path / "a.svg").read_bytes()
    assert content == (tmp_path / "b.svg").read_bytes()
    assert len(content) < 100_000
    assert ElementTree.fromstring(content).tag.endswith("svg")
    assert b"<dc:date>" not in content


def test_the_png_is_a_png(tmp_path):
    write_picture(fake_results(seeds=1), tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_another_format_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"name it \.svg or \.png"):
        write_picture(fake_results(), tmp_path / "a.jpeg")


def test_a_report_is_written_whole_and_the_same_twice(tmp_path):
    path = tmp_path / "results.json"
    publish_json(path, fake_results())
    text = write_report(path)
    files = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert set(files) == {"results.json", "table.txt", "report.html", "picture.svg"}
    assert files["table.txt"].decode() == text
    write_report(path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == files


def test_a_run_without_curves_has_no_picture(tmp_path):
    results = fake_results()
    for arm in results["arms"].values():
        del arm["curve"]
    path = tmp_path / "results.json"
    publish_json(path, results)
    write_report(path)
    assert not (tmp_path / "picture.svg").exists()
    with pytest.raises(InputError, match="no arm has a learning curve"):
        write_picture(results, tmp_path / "picture.svg")
