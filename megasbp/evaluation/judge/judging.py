"""A judge's answers, kept as they come, and the rate they give."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from scipy.stats import binomtest

from megasbp.evaluation.judge.questions import read_answer

_SAID_EVERY = 100


@dataclass(frozen=True)
class Answer:
    """What a judge said.

    Attributes:
        text: all of it.
        version: what names the model that said it, as exactly as it can be known.
    """

    text: str
    version: str


class Judge(Protocol):
    """A model that reads a prompt and answers in words."""

    def answers(self, prompts: Sequence[str]) -> Iterator[Answer]:
        """The answers in the order of the prompts, each as soon as it and those before it are there.

        Raises:
            InputError: the model cannot be had, or does not answer. Nothing stands in for a missing answer.
        """
        ...


@dataclass(frozen=True)
class Case:
    """A document that is judged: its number, and the prompt."""

    document: int
    prompt: str


def judge_cases(
    judge: Judge,
    cases: Sequence[Case],
    path: Path,
    announce: Callable[[str], None] = lambda line: None,
) -> list[dict[str, Any]]:
    """Judges the cases that a file does not answer yet, each written to it as soon as it is answered.

    Args:
        path: JSON lines {"document", "verdict": true for yes, false, or null, "version", "answer"}, in the
            cases' order. A call that was stopped goes on there.
        announce: receives a line now and then.

    Returns:
        The lines of all cases.

    Raises:
        InputError: as `Judge.answers`; what was answered before stays.
    """
    rows = _answered(path)
    assert [row["document"] for row in rows] == [case.document for case in cases[: len(rows)]]
    missing = cases[len(rows) :]
    with open(path, "a", encoding="utf-8") as file:
        for case, answer in zip(missing, judge.answers([case.prompt for case in missing]), strict=True):
            rows.append(
                {
                    "document": case.document,
                    "verdict": read_answer(answer.text),
                    "version": answer.version,
                    "answer": answer.text,
                }
            )
            file.write(json.dumps(rows[-1], ensure_ascii=False) + "\n")
            file.flush()
            if len(rows) % _SAID_EVERY == 0:
                announce(f"{path.stem}: {len(rows)} of {len(cases)} documents judged")
    return rows


def rate(verdicts: Sequence[bool | None], level: float = 0.95) -> dict[str, Any]:
    """The share of yes among readable answers, with Wilson's interval (JASA 22, 1927).

    Returns:
        {"documents", "unparsable", "estimate", "low", "high", "level"}; without a readable answer the rate
        and its bounds are None.
    """
    readable = [verdict for verdict in verdicts if verdict is not None]
    estimate = low = high = None
    if readable:
        estimate = sum(readable) / len(readable)
        bounds = binomtest(sum(readable), len(readable)).proportion_ci(level, method="wilson")
        low, high = float(bounds.low), float(bounds.high)
    return {
        "documents": len(verdicts),
        "unparsable": len(verdicts) - len(readable),
        "estimate": estimate,
        "low": low,
        "high": high,
        "level": level,
    }


def _answered(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a file; a line that a stop has cut is removed from it."""
    if not path.exists():
        return []
    with open(path, "r+b") as file:
        lines = file.read().split(b"\n")
        file.truncate(sum(len(line) + 1 for line in lines[:-1]))
    return [json.loads(line) for line in lines[:-1]]
