"""The tasks of this project: their files are read as they stand, and what is wrong with one is said."""

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError
from task_files import JSON_TASKS, SECOND, write_task_files

from megasbp.errors import InputError
from megasbp.evaluation.downstream.config import DownstreamConfig
from megasbp.evaluation.downstream.local_tasks import LOCAL_TASKS, TASKS_FOLDER, check_files, local_task


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_task_files(tmp_path / "eval")


def test_there_is_a_made_up_file_for_every_task() -> None:
    assert set(LOCAL_TASKS) == set(SECOND)


@pytest.mark.parametrize("name", LOCAL_TASKS)
def test_a_task_is_named_as_its_file_and_holds_one_rising_metric(name: str) -> None:
    config = yaml.safe_load((TASKS_FOLDER / f"{name}.yaml").read_text())
    assert config["task"] == name
    # A document of the file must not be its own solved example.
    assert config["fewshot_split"] == config["test_split"] == "test"
    assert [metric["higher_is_better"] for metric in config["metric_list"]] == [True]


@pytest.mark.parametrize("name", LOCAL_TASKS)
def test_what_a_document_asks(name: str, data: Path) -> None:
    task = check_files(name, data)
    assert task.requests(*task.rows[1]) == SECOND[name]


@pytest.mark.parametrize("name", LOCAL_TASKS)
def test_a_missing_file_is_named_with_where_it_comes_from(name: str, tmp_path: Path) -> None:
    source = yaml.safe_load((TASKS_FOLDER / f"{name}.yaml").read_text())["metadata"]["source"]
    with pytest.raises(InputError, match=f"no such file, but task {name} reads it; ") as refused:
        local_task(name, tmp_path)
    assert source in str(refused.value)


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("megasbp_lambada", '{"context": "a", "continuation": "b"', r"lambada_openai.jsonl: not valid JSON"),
        ("megasbp_lambada", '["a"]', r"lambada_openai.jsonl:4: a JSON list, not an object"),
        ("megasbp_lambada", '{"context": "a"}', r"lambada_openai.jsonl:4: no document of megasbp_lambada"),
        ("megasbp_arc_easy", '{"query": "a", "choices": ["b"], "gold": 1}', r"answer 1 of 1"),
        ("megasbp_arc_easy", '{"query": "a", "choices": ["b"], "gold": -1}', r"answer -1 of 1"),
        (
            "megasbp_winogrande",
            '{"context_options": ["a"], "continuation": "b", "gold": 2}',
            r"answer 2 of 1",
        ),
        ("megasbp_triviaqa", '{"context": "a", "answer": "b"}', r"'aliases' is undefined"),
    ],
)
def test_a_damaged_file_is_refused_with_the_place(name: str, line: str, message: str, data: Path) -> None:
    with open(data / JSON_TASKS[name][0], "a", encoding="utf-8") as file:
        file.write(line + "\n")
    with pytest.raises(InputError, match=message):
        check_files(name, data)


def test_a_table_without_the_columns_is_refused(data: Path) -> None:
    (data / "mmlu" / "zoology_test.csv").write_text("question,answer\nWhich?,1\n")
    with pytest.raises(InputError, match=r"zoology_test.csv:2: no document of megasbp_mmlu .*choice0"):
        check_files("megasbp_mmlu", data)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tasks": ["megasbp_lambda"]}, "those of this project are megasbp_arc_challenge, "),
        ({"tasks": ["piqa", "piqa"]}, "name none twice"),
        ({"tasks": ["megasbp_piqa"]}, "set data to its folder"),
        ({"tasks": ["piqa"], "shots": {"sciq": 1}}, "shots of 'sciq' are 1; name one of tasks"),
        ({"tasks": ["piqa"], "shots": -1}, "shots of 'piqa' are -1"),
        ({"tasks": ["piqa"], "limit": 1}, "greater than or equal to 2"),
    ],
)
def test_impossible_settings_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DownstreamConfig(**settings)


def test_documents_are_chosen_evenly_and_none_twice() -> None:
    config = DownstreamConfig(tasks=("piqa",), limit=4)
    assert config.chosen(10) == [0, 2, 5, 7]
    assert config.chosen(4) == config.chosen(4) == [0, 1, 2, 3]
    assert config.chosen(3) == [0, 1, 2]
    assert DownstreamConfig(tasks=("piqa",)).chosen(3) == [0, 1, 2]


def test_shots_are_of_all_tasks_or_by_task() -> None:
    assert DownstreamConfig(tasks=("piqa", "sciq"), shots=2).shots_of("sciq") == 2
    some = DownstreamConfig(tasks=("piqa", "sciq"), shots={"sciq": 5})
    assert (some.shots_of("piqa"), some.shots_of("sciq")) == (0, 5)
