"""Files that are not a run's own are read once, and again when they have changed."""

import json
import os
from pathlib import Path

import pytest

from megasbp.experiment import outside_files
from megasbp.experiment.outside_files import REMEMBERED, hash_outside_files
from megasbp.storage import hash_file


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were read, as a new process would: it remembers nothing itself."""
    names: list[str] = []
    monkeypatch.setattr(
        outside_files, "hash_once", lambda path: names.append(Path(path).name) or hash_file(path)
    )
    return names


def settled(path: Path, text: str) -> Path:
    """A file whose change is a while ago (that of its inode is not: the wait is taken out of the rule)."""
    path.write_text(text)
    os.utime(path, (1, 1))
    return path


def test_a_file_is_read_again_only_when_it_has_changed(
    tmp_path: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outside_files, "_SETTLED_SECONDS", -60)
    files = [settled(tmp_path / name, name) for name in ("a", "b")]
    run = tmp_path / "run"
    assert hash_outside_files(files, run, remember=True) == [hash_file(file) for file in files]
    assert hash_outside_files(files, run, remember=True) == [hash_file(file) for file in files]
    assert read == ["a", "b"]
    # As many letters, and its old time put back.
    settled(files[0], "c")
    assert hash_outside_files(files, run, remember=True)[0] == hash_file(files[0])
    assert read == ["a", "b", "a"]


def test_a_file_just_written_is_not_taken_for_known(tmp_path: Path, read: list[str]) -> None:
    file = settled(tmp_path / "a", "a")
    for _ in range(2):
        hash_outside_files([file], tmp_path / "run", remember=True)
    assert read == ["a", "a"]


def test_who_makes_nothing_writes_nothing(tmp_path: Path, read: list[str]) -> None:
    hash_outside_files([settled(tmp_path / "a", "a")], tmp_path / "run", remember=False)
    assert not (tmp_path / "run").exists()


def test_damaged_memory_is_no_memory(
    tmp_path: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outside_files, "_SETTLED_SECONDS", -60)
    file, run = settled(tmp_path / "a", "a"), tmp_path / "run"
    hash_outside_files([file], run, remember=True)
    for damage in ("{", "[]", json.dumps({str(file): 1})):
        (run / REMEMBERED).write_text(damage)
        assert hash_outside_files([file], run, remember=True) == [hash_file(file)]
    assert read == ["a"] * 4
