"""Benchmarks: the texts of this project's tasks and of files, and what is said of one that cannot be read."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from task_files import SECOND, write_task_files

from megasbp.errors import InputError
from megasbp.evaluation.benchmarks import Benchmark
from megasbp.evaluation.downstream.local_tasks import LOCAL_TASKS, local_task
from megasbp.evaluation.quality_config import QualityConfig


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_task_files(tmp_path / "eval")


def lines(path: Path, *rows: object) -> Path:
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return path


@pytest.mark.parametrize("name", LOCAL_TASKS)
def test_a_tasks_text_is_what_each_document_asks_with_every_answer(name: str, data: Path) -> None:
    benchmark = Benchmark(Path(name), "text", data)
    texts = list(benchmark.texts())
    assert len(texts) == len(local_task(name, data).rows)
    assert texts[1] == "\n".join(context + answer for context, answer in SECOND[name])
    assert (benchmark.name, benchmark.unreadable) == (name, 0)
    assert benchmark.task is not None and benchmark.files == list(benchmark.task.files)


def test_rows_that_cannot_be_read_are_counted(tmp_path: Path, data: Path) -> None:
    path = lines(tmp_path / "mine.jsonl", {"question": "one"}, {"text": "two"}, "{", {"question": " "})
    benchmark = Benchmark(path, "question", None)
    for _ in range(2):
        assert list(benchmark.texts()) == ["one"]
        assert benchmark.unreadable == 3
    with open(data / "arc_easy.jsonl", "a", encoding="utf-8") as file:
        file.write('{"query": "What?", "choices": ["a"], "gold": 1}\n')
    task = Benchmark(Path("megasbp_arc_easy"), "text", data)
    assert (len(list(task.texts())), task.unreadable) == (3, 1)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [{"context": "a", "continuation": "b"}] * 2,
            r"mine.jsonl: none of its 2 rows has a text \(missing_text: no field 'text'; there are: context, "
            r"continuation\); set quality.benchmark_field",
        ),
        ([], r"mine.jsonl: none of its 0 rows has a text \(empty\)"),
    ],
)
def test_a_benchmark_without_a_text_is_refused_before_anything_is_made(
    rows: list, message: str, tmp_path: Path
) -> None:
    config = QualityConfig(benchmarks=(lines(tmp_path / "mine.jsonl", *rows),))
    with pytest.raises(InputError, match=message):
        config.require_inputs(None)


def test_a_table_without_the_column_names_those_that_it_has(tmp_path: Path) -> None:
    path = tmp_path / "mine.parquet"
    pq.write_table(pa.table({"question": ["one"], "answer": ["two"]}), path)
    with pytest.raises(
        InputError, match=r"no column 'text'; quality.benchmark_field may be: question, answer"
    ):
        QualityConfig(benchmarks=(path,)).require_inputs(None)
    QualityConfig(benchmarks=(path,), benchmark_field="question").require_inputs(None)


def test_tasks_are_refused_before_anything_is_made(data: Path) -> None:
    config = QualityConfig(benchmarks=tuple(map(Path, LOCAL_TASKS)))
    config.require_inputs(data)
    with pytest.raises(InputError, match="names megasbp_arc_challenge, which reads files; set evaluation"):
        config.require_inputs(None)
    lines(data / "piqa.jsonl", {"context": "a"})
    with pytest.raises(InputError, match=r"megasbp_piqa: none of its 1 rows .*piqa.jsonl:1: no document of"):
        config.require_inputs(data)
    (data / "piqa.jsonl").unlink()
    with pytest.raises(InputError, match=r"piqa.jsonl: no such file, but task megasbp_piqa reads it"):
        config.require_inputs(data)


def test_a_task_that_is_none_of_this_project_is_named() -> None:
    with pytest.raises(InputError, match=r"megasbp_lambda: no such file or folder; .*megasbp_lambada"):
        QualityConfig(benchmarks=(Path("megasbp_lambda"),)).require_inputs(None)
