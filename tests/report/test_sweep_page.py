"""The page of a sweep."""

import json
from pathlib import Path

import pytest
from fixture import fake_results
from swept import make_sweep
from test_page import HOSTILE, Reader

from megasbp.errors import InputError
from megasbp.report.sweep_page import sweep_page, write_sweep
from megasbp.report.sweep_table import read_swept, table_of_test, table_of_validation
from megasbp.report.write import write_report


def change(path: Path, number: int, **parts: dict) -> None:
    """Changes parts of the results of one combination."""
    place = path.parent / f"variant-{number}" / "results.json"
    results = json.loads(place.read_text())
    place.write_text(json.dumps(results | parts))


def words_of(path: Path) -> str:
    return Reader(sweep_page(read_swept(path))).words()


def test_every_combination_has_its_interval_its_row_and_its_report(tmp_path):
    path = make_sweep(tmp_path, {"synthesis.temperature": 0.8}, {"synthesis.temperature": 1.0})
    html = sweep_page(read_swept(path))
    reader = Reader(html)
    assert html == sweep_page(read_swept(path))
    words = reader.words()
    assert words.count("temperature 0.8") >= 2
    assert "+0.0010" in words
    assert "+0.0020" in words
    links = [attributes["href"] for tag, attributes in reader.tags if tag == "a"]
    assert {"variant-0/report.html", "variant-1/report.html"} <= set(links)
    charts = [attributes["aria-label"] for tag, attributes in reader.tags if tag == "svg"]
    assert any("SBP over baseline" in chart for chart in charts)


def test_settings_are_chosen_by_validation_before_any_test_loss_is_shown(tmp_path):
    path = make_sweep(tmp_path, {"synthesis.temperature": 0.8}, {"synthesis.temperature": 1.0})
    arms = fake_results()["arms"]
    losses = ((4.4, 4.1), (4.5, 4.2), (4.6, 4.6))
    for seed, (final, best) in zip(arms["sbp"]["seeds"].values(), losses, strict=True):
        seed |= {"final_validation_loss": final, "best_validation_loss": best}
    for seed in arms["baseline"]["seeds"].values():
        seed |= {"final_validation_loss": 4.75, "best_validation_loss": 4.0}
    del arms["random_pairs"]["seeds"]["1"]["best_validation_loss"]
    change(path, 1, arms=arms)
    table = table_of_validation(read_swept(path))
    row = dict(zip(table.header, table.rows[1], strict=True))
    assert row["synthesis.temperature"] == "1.0"
    assert row["SBP"] == "4.5000 (4.3000)"
    assert row["Baseline"] == "4.7500 (4.0000)"
    # At its lowest the baseline is better.
    assert row["SBP over baseline"] == "+0.2500 (\N{MINUS SIGN}0.3000)"
    # A mean over seeds is of all of them or none.
    assert row["Random pairs"] == row["SBP over random pairs"] == "\N{EN DASH}"
    assert row["Kept"] == "78%"
    words = words_of(path)
    assert words.index("4.5000 (4.3000)") < words.index("Then read these: test") < words.index("1.3142")
    write_sweep(path)
    text = (tmp_path / "table.txt").read_text()
    assert text.index("Validation: gains and losses") < text.index("Test: loss of the baseline")


def test_an_arm_that_one_combination_lacks_is_a_dash(tmp_path):
    path = make_sweep(tmp_path, {"budget.arms": ["baseline", "sbp"]}, {"budget.arms": ["baseline", "oracle"]})
    results = fake_results()
    change(
        path,
        1,
        arms={name: results["arms"][name] for name in ("baseline", "oracle")},
        contrasts={"oracle vs baseline": results["contrasts"]["oracle vs baseline"]},
    )
    swept = read_swept(path)
    for table in (table_of_validation(swept), table_of_test(swept)):
        first, second = (dict(zip(table.header, row, strict=True)) for row in table.rows)
        assert first["SBP over baseline"] != "\N{EN DASH}" == second["SBP over baseline"]
        assert second["Oracle over baseline"] != "\N{EN DASH}"


@pytest.mark.parametrize(
    ("split", "changed", "same_test", "same_validation"),
    [
        ("test", {}, True, True),
        ("test", {"bytes": 491_878}, False, True),
        ("test", {"documents": 999}, False, True),
        # Another tokenizer: nats per byte do not depend on it, nats per token do.
        ("test", {"tokens": 1}, True, True),
        ("validation", {"tokens": 1}, True, False),
        ("validation", {"documents": 1}, True, False),
    ],
)
def test_the_page_says_the_same_documents_only_where_they_are(
    tmp_path, split, changed, same_test, same_validation
):
    path = make_sweep(tmp_path, {"corpus.seed": 0}, {"corpus.seed": 1})
    corpus = fake_results()["corpus"]
    corpus["splits"][split] |= changed
    change(path, 1, corpus=corpus)
    words = words_of(path)
    assert ("measured on the same test documents." in words) == same_test
    assert ("not all measured on the same test documents:" in words) == (not same_test)
    assert ("measured on the same validation documents." in words) == same_validation
    assert ("do not have the same validation documents" in words) == (not same_validation)


def test_a_setting_that_a_recipe_leaves_out_is_a_dash_in_the_table_and_no_word_in_the_chart(tmp_path):
    path = make_sweep(
        tmp_path,
        {"pairing.source": "neighbours", "pairing.random_pairs": None},
        {"pairing.source": "random", "pairing.random_pairs": 5000},
    )
    assert [row[:2] for row in table_of_test(read_swept(path)).rows] == [
        ["neighbours", "\N{EN DASH}"],
        ["random", "5000"],
    ]
    words = words_of(path)
    assert "source random, random_pairs 5000" in words
    assert "None" not in words and "source neighbours, random_pairs" not in words


def test_html_in_the_settings_stays_text(tmp_path):
    reader = Reader(sweep_page(read_swept(make_sweep(tmp_path, {"pairing.embedder": HOSTILE}))))
    assert [tag for tag, _ in reader.tags if tag in {"img", "script"}] == ["script"]
    assert HOSTILE in reader.words()


def test_a_worth_without_an_interval_is_drawn(tmp_path):
    path = make_sweep(tmp_path, {"pairing.minimum_similarity": 0.9})
    pair_value = fake_results()["pair_value"]
    for table in pair_value["tables"].values():
        table["worth"] |= {"low": None, "high": None}
    change(path, 0, pair_value=pair_value)
    worth = next(iter(pair_value["tables"].values()))["worth"]["estimate"]
    assert f"{worth:.4f}" in words_of(path)
    (row,) = table_of_test(read_swept(path)).rows
    assert f"{worth:.4f}" in row


def test_the_run_and_each_combination_have_a_link_to_the_page_of_all(tmp_path):
    report = tmp_path / "report"
    for folder in (report, report / "partial"):
        folder.mkdir()
        (folder / "results.json").write_text(json.dumps(fake_results()))
    write_report(report / "results.json")
    assert "sweep" not in (report / "report.html").read_text().lower()
    write_sweep(make_sweep(tmp_path / "sweep", {"seeds": [0]}))
    for folder, expected in (
        (report, "../sweep/report.html"),
        (report / "partial", "../../sweep/report.html"),
        (tmp_path / "sweep" / "variant-0", "../../sweep/report.html"),
    ):
        write_report(folder / "results.json")
        tags = Reader((folder / "report.html").read_text()).tags
        assert ("a", {"href": expected}) in tags
        assert (folder / expected).is_file()


def test_a_missing_result_is_named(tmp_path):
    path = make_sweep(tmp_path, {"seeds": [0]})
    (tmp_path / "variant-0" / "results.json").unlink()
    with pytest.raises(InputError, match="variant-0/results.json"):
        write_sweep(path)
