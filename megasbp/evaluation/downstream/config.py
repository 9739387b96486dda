"""The recipe's section [evaluation.downstream]."""

from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from megasbp.evaluation.downstream.local_tasks import LOCAL_TASKS, PREFIX


class DownstreamConfig(BaseModel):
    """Tasks that every arm's last weights are measured on; see docs/evaluation.md.

    Attributes:
        tasks: names; those that begin with "megasbp_" read `data`, any other is one of lm-eval's own, which
            fetches its data. None: nothing is measured.
        data: folder of the files that the "megasbp_" tasks read. Results depend on what the files hold, not
            on where they lie.
        limit: documents of each task, spread evenly over all of it; None for every one.
        shots: solved examples before each document, drawn from the same file; one number, or one by task
            (0 for those that are not named).
        batch_size: requests per forward pass.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tasks: tuple[str, ...] = ()
    data: Path | None = None
    limit: int | None = Field(None, ge=2)
    shots: int | dict[str, int] = 0
    batch_size: int = Field(16, ge=1)

    @model_validator(mode="after")
    def _settings_agree(self) -> Self:
        if len(set(self.tasks)) != len(self.tasks):
            raise ValueError(f"tasks are {list(self.tasks)}; name none twice")
        unknown = [task for task in self.tasks if task.startswith(PREFIX) and task not in LOCAL_TASKS]
        if unknown:
            raise ValueError(f"tasks name {unknown[0]!r}; those of this project are {', '.join(LOCAL_TASKS)}")
        if self.local_tasks and self.data is None:
            raise ValueError(
                f"tasks name {self.local_tasks[0]!r}, which reads a file; set data to its folder"
            )
        counts = self.shots if isinstance(self.shots, dict) else {task: self.shots for task in self.tasks}
        for task, count in counts.items():
            if count < 0 or task not in self.tasks:
                raise ValueError(f"shots of {task!r} are {count}; name one of tasks, and 0 or more")
        return self

    @property
    def local_tasks(self) -> tuple[str, ...]:
        """Those that read `data`."""
        return tuple(task for task in self.tasks if task.startswith(PREFIX))

    def shots_of(self, task: str) -> int:
        """Solved examples before each document of a task."""
        return self.shots.get(task, 0) if isinstance(self.shots, dict) else self.shots

    def chosen(self, documents: int) -> list[int]:
        """Which of a task's documents are measured: spread evenly, because files are in an order.

        MMLU's are one subject after another.
        """
        count = documents if self.limit is None else min(self.limit, documents)
        return [place * documents // count for place in range(count)]

    def content(self) -> dict[str, Any]:
        """The section as JSON-serialisable values, without where the files lie."""
        return self.model_dump(mode="json", exclude={"data"})
