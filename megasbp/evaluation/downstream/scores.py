"""What a model was measured at on one task: a row per document, so that arms can be compared in pairs."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from megasbp.storage import publishing_file

_METRIC = "metric "
_COUNTS = ("shots", "cut")


@dataclass(frozen=True)
class TaskScores:
    """Scores on the measured documents of a task, n of them.

    Attributes:
        documents: int64 [n], their places in the task's data.
        metrics: lm-eval's metric -> float64 [n], of each document; higher is better.
        answer_nats: float64 [n], -log p of the right answer given the question; None where the task has no
            such answer. Of several accepted answers it is the first.
        answer_bytes: int64 [n], UTF-8 bytes of that answer, with the space before it; None likewise.
        choices: int64 [n], how many answers a document offers of which one is right; 0 where it offers none.
        shots: solved examples before each document.
        cut: requests of which the model has not seen all, because they are longer than its sequences.
    """

    documents: np.ndarray
    metrics: dict[str, np.ndarray]
    answer_nats: np.ndarray | None
    answer_bytes: np.ndarray | None
    choices: np.ndarray
    shots: int
    cut: int

    @property
    def chance(self) -> float | None:
        """The accuracy of guessing; None where there is nothing to choose from."""
        return float((1 / self.choices).mean()) if (self.choices > 0).all() else None


def write_scores(scores: TaskScores, path: Path) -> None:
    """Publishes them as a Parquet file."""
    columns = {"document": scores.documents, "choices": scores.choices}
    columns |= {f"{_METRIC}{name}": values for name, values in scores.metrics.items()}
    if scores.answer_nats is not None and scores.answer_bytes is not None:
        columns |= {"answer_nats": scores.answer_nats, "answer_bytes": scores.answer_bytes}
    table = pa.table(columns).replace_schema_metadata({name: str(getattr(scores, name)) for name in _COUNTS})
    with publishing_file(path) as partial:
        pq.write_table(table, partial)


def read_scores(path: Path) -> TaskScores:
    """What `write_scores` wrote."""
    table = pq.read_table(path)
    columns = {name: table[name].to_numpy() for name in table.column_names}
    return TaskScores(
        columns["document"],
        {name.removeprefix(_METRIC): part for name, part in columns.items() if name.startswith(_METRIC)},
        columns.get("answer_nats"),
        columns.get("answer_bytes"),
        columns["choices"],
        **{name: int(table.schema.metadata[name.encode()]) for name in _COUNTS},
    )
