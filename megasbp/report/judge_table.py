"""A judge's rates, beside those that the paper publishes, as plain cells."""

from megasbp.report.formats import NOTHING, arm_name, arms_in_order, count, label, share
from megasbp.report.paper import PAPER_QUALITY, PAPER_SCALES
from megasbp.report.tables import Table
from megasbp.report.text_schema import Judge, JudgedRate

# Question -> its row in the paper's table.
_IN_PAPER = {"not_factual": "Not factual", "irrelevant": "Irrelevant to its seed"}

_REAL_NAMES = {"real": "Real", "unrelated": "Real, random pairs"}


def judge_table(judge: Judge) -> Table:
    """Rates of each question, of real text, of the arms, and of the paper's."""
    rows = []
    for name, question in judge.questions.items():
        words = _IN_PAPER.get(name, label(name))
        real = [text for text in _REAL_NAMES if text in question.rates]
        for text in [*real, *arms_in_order(set(question.rates) - set(real))]:
            rows.append([words, _REAL_NAMES.get(text) or arm_name(text), *_cells(question.rates[text])])
        for scale, rate in zip(PAPER_SCALES, PAPER_QUALITY.get(words, ()), strict=False):
            if rate is not None:
                rows.append([words, f"The paper: {scale}", share(rate / 100), NOTHING, NOTHING, NOTHING])
    versions = ", ".join(one[:40] for one in judge.versions) or "unknown"
    prompts = ", ".join(f"{name} {one.prompt_hash[:12]}" for name, one in judge.questions.items())
    return Table(
        f"What a judge says: {judge.name}",
        ["Judged", "Text", "Rate", "Its interval", "Documents", "Unreadable answers"],
        rows,
        f"Version {versions}; prompts {prompts}; documents drawn by seed {judge.seed}; texts cut to "
        f"{count(judge.maximum_characters)} characters. Wilson intervals, of readable answers alone. Real "
        "text is held-out text, and true pairs for relevance: its rates are at least the judge's error. Of "
        "random pairs a judge that reads well calls nearly all irrelevant. The paper's rates are by its own.",
        text_columns=2,
    )


def _cells(rate: JudgedRate) -> list[str]:
    bounds = NOTHING
    if rate.low is not None and rate.high is not None:
        bounds = f"{share(rate.low)} to {share(rate.high)}"
    return [share(rate.estimate), bounds, count(rate.documents), count(rate.unparsable)]
