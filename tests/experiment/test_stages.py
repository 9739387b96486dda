import shutil
from pathlib import Path

import pytest

from megasbp.errors import InputError
from megasbp.experiment.stages import MissingStage, Workspace


def make_text(folder: Path) -> dict[str, int]:
    (folder / "text.txt").write_text("whole")
    return {"letters": 5}


def test_a_finished_stage_is_kept(tmp_path: Path) -> None:
    calls = []

    def make(folder: Path) -> dict[str, int]:
        calls.append(folder)
        return make_text(folder)

    for _ in range(2):
        result = Workspace(tmp_path).stage("s", inputs={"a": "1"}, settings={"x": 1}, make=make)
    assert len(calls) == 1
    assert result.facts == {"letters": 5}


def test_a_changed_setting_makes_another_folder_and_keeps_the_old_one(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    first = workspace.stage("s", inputs={}, settings={"x": 1}, make=make_text)
    second = workspace.stage("s", inputs={}, settings={"x": 2}, make=make_text)
    assert first.folder != second.folder
    assert (first.folder / "text.txt").exists()


def test_a_changed_input_is_a_changed_stage(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    first = workspace.stage("s", inputs={"a": "1"}, settings={}, make=make_text)
    second = workspace.stage("s", inputs={"a": "2"}, settings={}, make=make_text)
    assert first.folder != second.folder


def test_an_interrupted_stage_continues_in_its_folder(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "progress").write_text("half")
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        Workspace(tmp_path).stage("s", inputs={}, settings={}, make=fail)
    seen = []

    def resume(folder: Path) -> None:
        seen.append((folder / "progress").read_text())

    Workspace(tmp_path).stage("s", inputs={}, settings={}, make=resume)
    assert seen == ["half"]


def test_a_damaged_finished_stage_is_named_and_not_overwritten(tmp_path: Path) -> None:
    result = Workspace(tmp_path).stage("s", inputs={}, settings={}, make=make_text)
    (result.folder / "text.txt").write_text("who")
    with pytest.raises(InputError, match=r"text\.txt has 3 bytes, its manifest says 5; remove that folder"):
        Workspace(tmp_path).stage("s", inputs={}, settings={}, make=make_text)
    assert (result.folder / "text.txt").read_text() == "who"


def test_a_read_only_workspace_refuses_to_make(tmp_path: Path) -> None:
    with pytest.raises(MissingStage, match="s: not made yet"):
        Workspace(tmp_path, makes=()).stage("s", inputs={}, settings={}, make=make_text)


def test_a_workspace_makes_the_stages_it_is_for_and_no_other(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, makes=("s",))
    assert workspace.stage("s", inputs={}, settings={}, make=make_text).facts == {"letters": 5}
    with pytest.raises(MissingStage, match="t: not made yet"):
        workspace.stage("t", inputs={}, settings={}, make=make_text)


def test_one_process_at_a_time_makes_a_stage(tmp_path: Path) -> None:
    folder = Workspace(tmp_path).stage("s", inputs={}, settings={}, make=make_text).folder
    shutil.rmtree(folder)
    half = tmp_path / folder.name / "half.partial-1"

    def second(place: Path) -> dict[str, int]:
        half.write_text("of the first")
        with pytest.raises(InputError, match="in use by process .*; wait for it or stop it"):
            Workspace(tmp_path).stage("s", inputs={}, settings={}, make=make_text)
        assert half.exists()
        half.unlink()
        return make_text(place)

    Workspace(tmp_path).stage("s", inputs={}, settings={}, make=second)
    # Its lock goes with it.
    assert sorted(path.name for path in tmp_path.iterdir()) == [folder.name, "timings.jsonl"]
