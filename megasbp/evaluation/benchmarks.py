"""Benchmarks: text that models are tested on, which synthetic text is searched for."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq

from megasbp.corpus.files import corpus_files
from megasbp.corpus.readers import records
from megasbp.corpus.records import Bad, Document, Fields, document
from megasbp.errors import InputError
from megasbp.evaluation.downstream.local_tasks import LOCAL_TASKS, PREFIX, LocalTask, local_task

_MAXIMUM_CHARACTERS = 1_000_000


class Benchmark:
    """The texts of a task of this project, or of a file or folder of the user's.

    Args:
        named: the task, or the path.
        field: of a file's text.
        data: folder of the files that tasks read.

    Attributes:
        name: what the results call it.
        task: None for a path.
        files: in the order in which they are read.
        unreadable: rows that `texts` has passed over.

    Raises:
        InputError: a file is missing or of an unknown kind, or a task has no folder.
    """

    def __init__(self, named: Path, field: str, data: Path | None) -> None:
        self.name, self.unreadable = named.name, 0
        self.task: LocalTask | None = None
        self._read: Callable[[], Iterator[str | Bad]]
        if str(named) in LOCAL_TASKS:
            if data is None:
                raise InputError(
                    f"quality.benchmarks names {named}, which reads files; set evaluation.downstream.data to "
                    "their folder"
                )
            self.task = task = local_task(str(named), data)
            self.files = list(task.files)
            self._read, self._mend = lambda: _task_texts(task), "restore the file"
        else:
            if not named.exists():
                tasks = f" or a task: {', '.join(LOCAL_TASKS)}" if self.name.startswith(PREFIX) else ""
                raise InputError(f"{named}: no such file or folder; correct quality.benchmarks{tasks}")
            self.files = corpus_files([named])
            self._read = lambda: _file_texts(self.files, field)
            self._mend = "set quality.benchmark_field to the field of its text"

    def texts(self) -> Iterator[str]:
        """Every text, in order. A row without one is counted in `unreadable`.

        Raises:
            InputError: at the end, when no row had one; at once, where a whole file has none.
        """
        self.unreadable, readable, first = 0, False, Bad("empty")
        for text in self._read():
            if isinstance(text, Bad):
                first = first if self.unreadable else text
                self.unreadable += 1
            else:
                readable = True
                yield text
        if not readable:
            why = f"{first.reason}: {first.detail}" if first.detail else first.reason
            raise InputError(
                f"benchmark {self.name}: none of its {self.unreadable} rows has a text ({why}); {self._mend}"
            )


def _task_texts(task: LocalTask) -> Iterator[str | Bad]:
    """What each document asks, with every answer."""
    for place, row in task.rows:
        try:
            yield "\n".join(context + answer for context, answer in task.requests(place, row))
        except InputError as error:
            yield Bad("not_of_the_task", str(error))


def _file_texts(files: list[Path], field: str) -> Iterator[str | Bad]:
    fields = Fields(field, "id", None, (), _MAXIMUM_CHARACTERS)
    for file in files:
        try:
            for position, record in records(file, fields):
                read = record if isinstance(record, Bad) else document(record, position, fields)
                yield read.text if isinstance(read, Document) else read
        except InputError:
            columns = ", ".join(pq.read_schema(file).names)
            raise InputError(
                f"{file}: no column {field!r}; quality.benchmark_field may be: {columns}"
            ) from None
