"""The recipe's [quality] section."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, field_validator

from megasbp.evaluation.benchmarks import Benchmark
from megasbp.evaluation.judge.config import JudgeConfig
from megasbp.evaluation.judge.endpoint import read_key


class QualityConfig(BaseModel):
    """What is measured on the synthetic text, beside what needs no setting.

    Attributes:
        maximum_documents: lengths, repetition, copying and what is new are measured on all accepted documents
            of an arm, or on so many of them, drawn at random, where there are more.
        documents: of each arm, the first so many accepted documents are embedded, for the relation to their
            seeds and the shift of topics.
        candidates: documents among which a text has to find its seed, the seed among them.
        topics: groups into which k-means divides the unique text; fewer where it has not ten documents for
            each.
        benchmarks: text that models are tested on: which synthetic documents share a shingle
            (pairing.shingle_width) with it. Tasks of this project, such as "megasbp_lambada", whose files
            are in evaluation.downstream.data; or files or folders in the forms of corpus.paths.
        benchmark_field: the field or column of the text of these files; tasks know their own.
        judge: a model that judges texts; none by default.
        duplicate_sizes: near-duplicates are counted among the first so many accepted documents of each arm,
            where it has them, and among as many real ones.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    maximum_documents: int = Field(100_000, ge=2)
    documents: int = Field(2000, ge=2)
    candidates: int = Field(1000, ge=2)
    topics: int = Field(64, ge=2)
    benchmarks: tuple[Path, ...] = ()
    benchmark_field: str = Field("text", min_length=1)
    judge: JudgeConfig | None = None
    duplicate_sizes: tuple[PositiveInt, ...] = Field((1_000, 10_000, 100_000, 1_000_000), min_length=1)

    @field_validator("benchmarks")
    @classmethod
    def _names_differ(cls, paths: tuple[Path, ...]) -> tuple[Path, ...]:
        names = [path.name for path in paths]
        if len({*names, "validation", "test"}) != len(names) + 2:
            raise ValueError(
                f"the results call benchmarks by their files' names, {names}; give each another name, not "
                "'validation' or 'test'"
            )
        return paths

    def opened_benchmarks(self, data: Path | None) -> list[Benchmark]:
        """The benchmarks.

        Args:
            data: evaluation.downstream.data.

        Raises:
            InputError: a file is not there, or `data` is not set where a task is named.
        """
        return [Benchmark(named, self.benchmark_field, data) for named in self.benchmarks]

    def require_inputs(self, data: Path | None) -> None:
        """Says that a file is missing, or cannot be read, before anything is written.

        Args:
            data: evaluation.downstream.data.

        Raises:
            InputError: a benchmark is not there or no row of it can be read, or the variable with the judge's
                key is not set.
        """
        if self.judge is not None and self.judge.key_variable is not None:
            read_key(self.judge.key_variable)
        for benchmark in self.opened_benchmarks(data):
            next(benchmark.texts())

    def sample(self) -> dict[str, int]:
        """What a stage that measures `maximum_documents` depends on; empty at the default."""
        return self.model_dump(include={"maximum_documents"}, exclude_defaults=True)

    def content(self) -> dict[str, Any]:
        """The settings other than the defaults, JSON-serialisable: a new setting changes no old hash.

        Of the judge, what its answers depend on.
        """
        values = self.model_dump(mode="json", exclude={"judge"}, exclude_defaults=True)
        return values if self.judge is None else {**values, "judge": self.judge.deciding()}
