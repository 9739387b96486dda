"""The table of downstream tasks: values with errors, gains in pairs, nothing where nothing was measured."""

from fixture import fake_results

from megasbp.report.downstream import downstream_table
from megasbp.report.page import page
from megasbp.report.schema import check_results
from megasbp.report.terminal import terminal_table


def rows() -> list[list[str]]:
    return downstream_table(check_results(fake_results())).rows


def test_an_accuracy_is_a_share_with_its_error_and_a_gain_in_points() -> None:
    first, second, *_ = rows()
    assert first == ["ARC-Easy, accuracy (guessing: 25%)", "Baseline", "31.2% ± 2.0", "–", "–"]
    assert second == ["", "SBP", "31.8% ± 2.0", "+0.6", "−0.4 to +1.6"]


def test_the_gain_of_an_answer_is_what_its_loss_falls_by() -> None:
    found = {(row[1], row[2]): row[3:] for row in rows()}
    assert found["SBP", "1.5800 ± 0.0200"] == ["+0.0300", "+0.0200 to +0.0400"]


def test_a_task_of_another_collection_keeps_its_name_and_says_its_shots() -> None:
    assert "gsm8k, exact match, 5 shots" in {row[0] for row in rows()}


def test_the_mean_of_the_tasks_comes_last() -> None:
    *_, baseline, sbp = rows()
    assert baseline[:3] == ["Mean accuracy of 3 tasks", "Baseline", "12.1% ± 0.8"]
    assert sbp == ["", "SBP", "11.9% ± 0.8", "−0.1", "−0.5 to +0.2"]


def test_it_stands_in_the_terminal_and_on_the_page() -> None:
    assert "ARC-Easy, answer, nats per byte" in terminal_table(fake_results())
    drawn = page(fake_results())
    assert 'id="downstream"' in drawn and "LAMBADA, accuracy" in drawn


def test_results_without_tasks_have_no_such_table() -> None:
    results = fake_results()
    del results["downstream"]
    assert "Downstream" not in terminal_table(results)
    assert 'id="downstream"' not in page(results)
