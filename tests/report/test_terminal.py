"""The table as text: deterministic, of fixed width, and safe against markup in the data."""

from io import StringIO

import pytest
from fixture import fake_results
from rich.console import Console

from megasbp.experiment.arms import ARMS
from megasbp.report.page import page
from megasbp.report.schema import check_results
from megasbp.report.tables import meanings_table, trials_table
from megasbp.report.terminal import WIDTH, print_report, terminal_table, write_table


def test_equal_results_give_equal_bytes_whatever_the_terminal(monkeypatch):
    first = terminal_table(fake_results())
    for name, value in {"COLUMNS": "40", "FORCE_COLOR": "1", "TERM": "dumb", "TTY_COMPATIBLE": "1"}.items():
        monkeypatch.setenv(name, value)
    assert terminal_table(fake_results()) == first


def test_it_is_plain_text_of_fixed_width():
    text = terminal_table(fake_results())
    assert "\x1b" not in text
    assert max(len(line) for line in text.splitlines()) <= WIDTH
    assert all(line == line.rstrip() for line in text.splitlines())


@pytest.mark.parametrize(
    "line",
    [
        "SBP beat the baseline: it saves 0.0073 nats per byte of held-out text",
        "SBP                   1.3069   1.2905 to 1.3233   +0.0073     +0.0027 to +0.0119       3",
        "SBP                   92%          1.3061   +0.0063     +0.0017 to +0.0109",
        "Worth of the relation                          +0.0310 (+0.0190 to +0.0430)",
        "Dropped: no end         1,104            970",
        "Total, initial model counted            54.00   149.21         149.21    54.00",
    ],
)
def test_it_holds_the_numbers_of_the_results(line):
    assert line in terminal_table(fake_results())


def test_the_arms_of_the_run_are_explained_in_the_words_of_the_code():
    results = fake_results()
    results["arms"]["unheard_of"] = results["arms"]["sbp"]
    rows = meanings_table(check_results(results)).rows
    names = ("baseline", "sbp", "random_pairs", "oracle")
    assert [row[:2] for row in rows] == [[ARMS[name].title, ARMS[name].trained_on] for name in names]
    assert [row[2] for row in rows] == [
        "–",
        "SBP over baseline",
        "SBP over random pairs",
        "Oracle over baseline",
    ]


def test_a_contrast_is_shown_with_the_gain_that_it_would_find():
    lines = terminal_table(fake_results()).splitlines()
    assert "Contrasts, nats per byte, over 3 seeds" in lines
    (line,) = [line for line in lines if line.startswith("H1: SBP over baseline")]
    bounds = "+0.0073 +0.0027 to +0.0119 0.011 \N{EN DASH} 0.0069"
    assert line.split() == ["H1:", "SBP", "over", "baseline", *bounds.split()]


def test_the_worth_of_a_pair_is_shown_over_the_seeds_and_of_each():
    results = fake_results()
    for table in results["pair_value"]["tables"].values():
        of_seed = {name: table[name] for name in ("pairs", "tokens", "losses", "shuffled_gap")}
        table["seeds"] = {
            seed: {**of_seed, "worth": {"estimate": worth, "low": worth - 0.01, "high": worth + 0.01}}
            for seed, worth in (("0", 0.02), ("1", 0.04))
        }
        table["worth"]["label"] = table["shuffled_gap"]["label"] = "over 2 seeds"
        table["bins_seed"] = 0
    text = terminal_table(results)
    assert "Worth, seed 1                                  +0.0400 (+0.0300 to +0.0500)" in text
    assert "Worth of the relation, over 2 seeds            +0.0310 (+0.0190 to +0.0430)" in text
    assert "True over another's seed, over 2 seeds" in text
    drawn = page(results)
    assert "The intervals are over 2 seeds." in drawn
    assert "Worth by similarity: new target, seed 0" in drawn


def test_settings_that_diverged_are_named_as_such():
    results = fake_results()
    results["tuning"]["trials"][0]["validation_loss"] = None
    results["synthesizer"]["true"]["trials"][0]["best_validation_loss"] = None
    rows = trials_table(check_results(results)).rows
    assert [row[-1] for row in rows if row[-1] == "diverged"] == ["diverged", "diverged"]
    assert rows[0] == ["baseline", "0.001", "0.1", "1", "diverged"]


def test_brackets_in_the_data_are_not_markup():
    results = fake_results() | {"name": "[bold]demo[/bold]", "what_this_run_can_show": ":smile: [/nothing]"}
    results["synthesis"]["sbp"]["drops"] = {"[red]reason[/red] :smile:": 3}
    text = terminal_table(results)
    assert "[bold]demo[/bold]" in text
    assert "Dropped: [red]reason[/red] :smile:" in text
    assert ":smile: [/nothing]" in text


def test_a_run_with_the_baseline_alone_is_drawn():
    results = fake_results() | {"contrasts": {}, "oracle_share": None, "quality": {}, "synthesis": {}}
    results["arms"] = {"baseline": results["arms"]["baseline"]}
    results["data_efficiency"] = None
    del results["pair_value"]
    text = terminal_table(results)
    assert "This run did not compare SBP with the baseline." in text
    assert "Contrasts" not in text


def test_the_printed_report_says_the_same():
    buffer = StringIO()
    print_report(fake_results(), Console(file=buffer, width=WIDTH))
    printed = [line.rstrip() for line in buffer.getvalue().splitlines()]
    assert printed == terminal_table(fake_results()).splitlines()


def test_the_file_is_the_text(tmp_path):
    write_table(fake_results(), tmp_path / "table.txt")
    assert (tmp_path / "table.txt").read_text(encoding="utf-8") == terminal_table(fake_results())
