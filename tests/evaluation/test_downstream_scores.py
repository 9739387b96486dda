"""What is kept of lm-eval's logged samples, without lm-eval."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from megasbp.evaluation.downstream.harness import scores_of
from megasbp.evaluation.downstream.scores import read_scores, write_scores


def task(output_type: str, choices: list[str] | None = None, **other: Any) -> Any:
    return SimpleNamespace(
        OUTPUT_TYPE=output_type,
        multiple_input=other.get("multiple_input", False),
        doc_to_choice=lambda document: choices,
        doc_to_text=lambda document: document["gold"],
    )


def sample(number: int, target: Any, answers: list[tuple[str, float]], **metrics: Any) -> dict[str, Any]:
    """As lm-eval logs a document: texts and log-likelihoods of the requests, and the metrics."""
    return {
        "doc_id": number,
        "doc": {"gold": 1},
        "target": target,
        "arguments": [("a context", text) for text, _ in answers],
        "filtered_resps": [(log_likelihood, False) for _, log_likelihood in answers],
        "filter": "none",
        "metrics": list(metrics),
        **metrics,
    }


def test_the_right_answer_of_a_choice() -> None:
    answers = [(" owl", -3.5), (" Zürich", -7.25)]
    rows = [sample(3, 1, answers, acc=0.0), sample(8, 0, answers, acc=1.0)]
    found = scores_of(task("multiple_choice", ["owl", "Zürich"]), rows, {"acc": True}, shots=2, cut=5)
    assert found.documents.tolist() == [3, 8]
    assert found.metrics["acc"].tolist() == [0.0, 1.0]
    assert found.answer_nats is not None and found.answer_nats.tolist() == [7.25, 3.5]
    # The space is part of what is predicted, and "ü" has two bytes.
    assert found.answer_bytes is not None and found.answer_bytes.tolist() == [8, 4]
    assert (found.chance, found.shots, found.cut) == (0.5, 2, 5)


def test_of_several_accepted_answers_it_is_the_first_and_none_is_guessed() -> None:
    rows = [sample(0, [0, 1], [(" White", -2.0), (" white", -1.0)], exact_match=1)]
    found = scores_of(task("multiple_choice", ["White", "white"]), rows, {"exact_match": True}, 0, 0)
    assert found.answer_nats is not None and found.answer_nats.tolist() == [2.0]
    assert found.chance is None


def test_beginnings_that_share_an_end() -> None:
    rows = [sample(0, "was green.", [(" was green.", -9.0), (" was green.", -4.0)], acc=1.0)]
    chosen = task("multiple_choice", ["The moss", "The wolf"], multiple_input=True)
    found = scores_of(chosen, rows, {"acc": True}, 0, 0)
    assert found.answer_nats is not None and found.answer_nats.tolist() == [4.0]
    assert found.chance == 0.5


def test_an_end_without_choices() -> None:
    rows = [sample(0, " king", [(" king", -4.0)], acc=0, perplexity=-4.0)]
    better = {"acc": True, "perplexity": False}
    found = scores_of(task("loglikelihood"), rows, better, 0, 0)
    assert set(found.metrics) == {"acc"}
    assert found.answer_nats is not None and found.answer_nats.tolist() == [4.0]
    assert found.chance is None


def test_generated_text_has_no_answer_to_be_scored() -> None:
    rows = [sample(0, "x", [("{}", 0.0)], exact_match=1.0, parts=(1, 2))]
    found = scores_of(task("generate_until"), rows, {"exact_match": True, "parts": True}, 0, 0)
    assert set(found.metrics) == {"exact_match"}
    assert found.answer_nats is None and found.answer_bytes is None


def test_only_the_first_filter_counts() -> None:
    rows = [sample(0, 0, [(" a", -1.0)], acc=1.0)]
    rows.append({**rows[0], "filter": "strict", "acc": 0.0})
    assert scores_of(task("multiple_choice", ["a"]), rows, {"acc": True}, 0, 0).metrics["acc"].tolist() == [
        1.0
    ]


def test_scores_survive_a_file_and_equal_ones_give_equal_bytes(tmp_path: Path) -> None:
    rows = [sample(3, 1, [(" a", -3.5), (" b", -7.25)], acc=0.0)]
    found = scores_of(task("multiple_choice", ["a", "b"]), rows, {"acc": True}, shots=1, cut=4)
    for name in ("one", "two"):
        write_scores(found, tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    again = read_scores(tmp_path / "one")
    assert (again.shots, again.cut, again.chance) == (1, 4, 0.5)
    assert set(again.metrics) == {"acc"}
    np.testing.assert_array_equal(again.answer_nats, found.answer_nats)
    np.testing.assert_array_equal(again.documents, found.documents)
