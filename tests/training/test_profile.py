import gzip
import json
from pathlib import Path

import pytest
from pydantic import ValidationError
from training_world import read_metrics, training_config, training_job

from megasbp.parallel.runtime import Runtime
from megasbp.training.metrics import TIME_FIELDS
from megasbp.training.profile import PROFILES, ProfilerWindow
from megasbp.training.trainer import train


def names(folder: Path) -> set[str]:
    with gzip.open(folder / PROFILES / "rank-0.json.gz", "rt") as file:
        return {event.get("name", "") for event in json.load(file)["traceEvents"]}


def timeless(folder: Path) -> list[dict]:
    return [
        {key: value for key, value in row.items() if key not in TIME_FIELDS} for row in read_metrics(folder)
    ]


@pytest.fixture(scope="module")
def profiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("profiled")
    train(training_job(folder, training={"profile_steps": [3, 4]}, steps=8), Runtime.start())
    return folder


def test_the_trace_names_the_steps_of_the_window_and_their_operations(profiled: Path) -> None:
    found = names(profiled)
    assert {name for name in found if name.startswith("step ")} == {"step 3", "step 4"}
    assert {"aten::mm", "aten::embedding"} <= found
    assert [path.name for path in (profiled / PROFILES).iterdir()] == ["rank-0.json.gz"]


def test_watching_changes_nothing(profiled: Path, tmp_path: Path) -> None:
    train(training_job(tmp_path, steps=8), Runtime.start())
    assert timeless(tmp_path) == timeless(profiled)
    assert not (tmp_path / PROFILES).exists()
    # Another window is the same job, which is finished.
    again = training_job(profiled, training={"profile_steps": [1, 1]}, steps=8)
    assert train(again, Runtime.start()).steps == 8


def test_a_window_that_is_passed_writes_nothing(tmp_path: Path) -> None:
    with ProfilerWindow(tmp_path, 0, (3, 4)) as window, window.step(5):
        pass
    assert not (tmp_path / PROFILES).exists()


def test_a_run_that_fails_within_the_window_leaves_no_trace(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), ProfilerWindow(tmp_path, 0, (3, 4)) as window, window.step(3):
        raise ZeroDivisionError
    assert not (tmp_path / PROFILES).exists()


def test_a_run_that_is_stopped_within_the_window_keeps_what_it_saw(tmp_path: Path) -> None:
    with pytest.raises(SystemExit), ProfilerWindow(tmp_path, 0, (3, 4)) as window:
        with window.step(3):
            pass
        raise SystemExit(143)
    assert "step 3" in names(tmp_path)


def test_a_window_that_ends_before_it_begins_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"set it to \[2, 5\]"):
        training_config(profile_steps=[5, 2])
