"""What the report shows of the synthetic text beside its quality."""

from fixture import fake_results

from megasbp.report.page import page
from megasbp.report.terminal import terminal_table


def test_the_relation_stands_beside_real_text_and_chance() -> None:
    text = terminal_table(fake_results())
    assert "Does the text know its seed? Seeds found among 1,000 documents" in text
    assert "Seed found first 13.30% 0.15% 30.10% 0.10% 0.10%" in " ".join(text.split())
    assert "12.0% to 14.6%" in text


def test_the_page_draws_the_similarity_of_each_kind_of_text_and_the_worth_by_similarity() -> None:
    html = page(fake_results())
    for name in ("SBP", "Random pairs", "True partner", "Any document"):
        assert f"{name}: similarity to the seed." in html
    assert "Worth by similarity: new target" in html


def test_near_duplicates_stand_beside_those_of_as_much_real_text() -> None:
    row = "Near-duplicates among the first: 1000 0.4% 0.8% 0.9%"
    assert row in " ".join(terminal_table(fake_results()).split())


def test_topics_stand_beside_the_divergence_of_no_shift() -> None:
    text = " ".join(terminal_table(fake_results()).split())
    assert "SBP 2,000 0.0391 1 3" in text
    assert "Real, held out 800 0.0127 0 0" in text
    assert "No shift: unique text against itself – 0.0121 (95%: 0.0163)" in text
    assert "Danube" in page(fake_results())


def test_contamination_stands_beside_that_of_the_unique_text() -> None:
    text = " ".join(terminal_table(fake_results()).split())
    assert "mmlu.jsonl 200 77 0.12% 0.34%" in text
    assert "Held-out text alone, before the filters – – – 2.90%" in text


def test_what_was_left_out_of_a_measure_is_said() -> None:
    results = fake_results()
    contamination = results["contamination"]
    contamination["tests"]["mmlu.jsonl"]["unreadable"] = 4
    contamination["measured"] = {"unique": 900, "sbp": 1_000}
    results["quality"]["sbp"]["all_documents"] = 5_000
    text = " ".join(terminal_table(results).split())
    assert "mmlu.jsonl, but 4 unreadable rows 200 77" in text
    assert "Measured, drawn at random – – 900 1,000" in text
    assert "Drawn from so many documents" in text and "5,000" in text
    whole = terminal_table(fake_results())
    assert not any(said in whole for said in ("unreadable", "drawn at random", "Drawn from"))


def test_a_judges_rates_stand_beside_the_papers_with_who_judged() -> None:
    text = " ".join(terminal_table(fake_results()).split())
    assert "What a judge says: a-judge" in text
    assert "Not factual SBP 62.0% 57.0% to 67.0% 200 7" in text
    assert "Irrelevant to its seed The paper: 6B at 1T tokens 6.0%" in text
    assert "Irrelevant to its seed Real, random pairs 93.0%" in text
    html = page(fake_results())
    assert "a-judge-2 fp_1" in html and "irrelevant fedcba987654" in html


def test_results_without_these_measures_are_drawn() -> None:
    results = fake_results()
    for part in ("relation", "topics", "contamination", "judge"):
        del results[part]
    drawn = terminal_table(results) + page(results)
    for title in ("Does the text know", "Topics: ", "Contamination: ", "What a judge says"):
        assert title not in drawn
