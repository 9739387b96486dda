"""The report's table of downstream tasks."""

from collections.abc import Mapping

from megasbp.report.formats import NOTHING, arm_name, arms_in_order, interval, number, share, signed
from megasbp.report.schema import Results
from megasbp.report.schema_tasks import Measured, Score, Task
from megasbp.report.tables import Table

TASK_NAMES = {
    "megasbp_lambada": "LAMBADA",
    "megasbp_wikidata": "Wikidata",
    "megasbp_arc_easy": "ARC-Easy",
    "megasbp_arc_challenge": "ARC-Challenge",
    "megasbp_piqa": "PIQA",
    "megasbp_winogrande": "WinoGrande",
    "megasbp_sciq": "SciQ",
    "megasbp_triviaqa": "TriviaQA",
    "megasbp_webqs": "WebQuestions",
    "megasbp_mmlu": "MMLU, letters",
    "megasbp_mmlu_text": "MMLU, texts",
}
MEASURE_NAMES = {
    "acc": "accuracy",
    "acc_norm": "accuracy by length",
    "exact_match": "exact match",
    "answer_nats_per_byte": "answer, nats per byte",
}
# Measures that are losses and no shares.
_LOSSES = {"answer_nats_per_byte"}


def downstream_table(results: Results) -> Table:
    """Every arm on every measure of every task, and its gain over the baseline."""
    found = results.downstream
    rows = []
    for name, task in found.tasks.items() if found else ():
        for measure, arms in task.measures.items():
            rows += _rows(_title(name, measure, task), arms, measure)
    if found and found.average:
        rows += _rows(f"Mean accuracy of {len(found.average.of)} tasks", found.average.arms, "acc")
    header = ["Task", "Arm", "Value \N{PLUS-MINUS SIGN} error", "Gain", "Interval of gain"]
    note = (
        f"By {found.harness if found else 'lm-eval'}. The gain is over the baseline, positive where the arm "
        "is better, in percentage points or nats per byte; it is paired by seed and document, so that its "
        "interval is narrower than two errors suggest. Answer: the loss of the right answer, which separates "
        "models whose accuracy is that of guessing. No gain here is a declared hypothesis, and they are many."
    )
    return Table("Downstream tasks", header, rows, note, text_columns=2)


def _rows(title: str, arms: Mapping[str, Measured], measure: str) -> list[list[str]]:
    rows = []
    for position, arm in enumerate(arms_in_order(arms)):
        one = arms[arm]
        gain = (_gain(one.gain, measure), _bounds(one.gain, measure))
        rows.append([title if position == 0 else "", arm_name(arm), _value(one.value, measure), *gain])
    return rows


def _title(name: str, measure: str, task: Task) -> str:
    shown = f"{TASK_NAMES.get(name, name)}, {MEASURE_NAMES.get(measure, measure)}"
    if task.shots:
        shown += f", {task.shots} shot{'s' if task.shots > 1 else ''}"
    is_choice = measure not in _LOSSES and task.chance is not None
    return f"{shown} (guessing: {share(task.chance, 0)})" if is_choice else shown


def _value(score: Score, measure: str) -> str:
    if measure in _LOSSES:
        return f"{number(score.estimate)} \N{PLUS-MINUS SIGN} {number(score.standard_error)}"
    error = f"{100 * score.standard_error:.1f}"
    return f"{share(score.estimate)} \N{PLUS-MINUS SIGN} {error}"


def _gain(score: Score | None, measure: str) -> str:
    if score is None or score.estimate is None:
        return NOTHING
    return signed(score.estimate) if measure in _LOSSES else signed(100 * score.estimate, 1)


def _bounds(score: Score | None, measure: str) -> str:
    if score is None or score.low is None or score.high is None:
        return NOTHING
    if measure in _LOSSES:
        return interval(score.low, score.high, sign=True)
    return interval(100 * score.low, 100 * score.high, 1, sign=True)
