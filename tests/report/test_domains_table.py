"""The table of held-out loss by domain."""

from fixture import fake_results

from megasbp.report.domains import domains_table
from megasbp.report.page import page
from megasbp.report.schema import check_results
from megasbp.report.terminal import terminal_table


def test_each_domain_has_every_arm_and_its_gain() -> None:
    rows = domains_table(check_results(fake_results())).rows
    assert rows[:2] == [
        ["book, 500 documents", "Baseline", "1.3100 ± 0.0200", "–", "–"],
        ["", "SBP", "1.3000 ± 0.0200", "+0.0100", "+0.0000 to +0.0200"],
    ]
    assert rows[2][0] == "web, 500 documents"


def test_it_stands_in_the_terminal_and_on_the_page_where_there_are_domains() -> None:
    results = fake_results()
    assert "Held-out loss by domain" in terminal_table(results)
    assert "Held-out loss by domain" in page(results)
    del results["domains"]
    assert "Held-out loss by domain" not in terminal_table(results)
    assert "Held-out loss by domain" not in page(results)
