"""The parts of results.json that hold downstream tasks and domains of the held-out text."""

from megasbp.report.schema_parts import Count, Finite, Interval, Part


class Score(Interval):
    """A value or a gain, with its standard error."""

    standard_error: Finite


class Measured(Part):
    """One measure of one arm: its value, and its gain over the baseline, positive where the arm is better."""

    value: Score
    gain: Score | None = None


class Domain(Part):
    """One domain of the test split: every arm's loss on it, in nats per byte."""

    documents: Count
    bytes: Count
    arms: dict[str, Measured]


class Task(Part):
    """One task: what was measured of it, by measure and arm.

    `chance`: the accuracy of guessing, null where there is nothing to choose from. `cut`: requests of one arm
    that were longer than its sequences.
    """

    documents: Count
    shots: Count = 0
    chance: Finite | None = None
    cut: Count = 0
    measures: dict[str, dict[str, Measured]]


class Average(Part):
    """The mean accuracy of several tasks, each as heavy as another; `of`: of each the measure that it is."""

    of: dict[str, str]
    arms: dict[str, Measured]


class Downstream(Part):
    """Every arm on downstream tasks.

    `limit`: the most documents of a task, null for all. `average`: null where fewer than two tasks have an
    accuracy, and in results of older versions.
    """

    harness: str
    limit: Count | None = None
    tasks: dict[str, Task]
    average: Average | None = None
