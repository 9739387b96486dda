import errno
import json
import os
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pytest

from megasbp import storage
from megasbp.errors import InputError
from megasbp.storage import (
    bytes_below,
    hash_file,
    hash_folder,
    hash_object,
    publish_bytes,
    publish_json,
    publish_manifest,
    publishing_folder,
    read_json,
    read_manifest,
    remove_partials,
    require_free_space,
)


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_and_no_leftover(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "file"
    publish_bytes(path, b"old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    target = Path if call == "write" else os
    monkeypatch.setattr(target, "write_bytes" if call == "write" else call, full)
    with pytest.raises(OSError, match="No space left"):
        publish_bytes(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("module, call", [(os, "fsync"), (storage, "_exchange")])
def test_a_full_disk_leaves_the_old_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: object, call: str
) -> None:
    folder = tmp_path / "folder"
    with publishing_folder(folder) as partial:
        (partial / "a").write_text("old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module, call, full)
    with pytest.raises(OSError, match="No space left"), publishing_folder(folder) as partial:
        (partial / "a").write_text("new")
    monkeypatch.undo()
    assert (folder / "a").read_text() == "old"
    assert os.listdir(tmp_path) == ["folder"]


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    for text in ("one", "two"):
        with publishing_folder(tmp_path / "folder") as partial:
            (partial / text).write_text(text)
    assert os.listdir(tmp_path / "folder") == ["two"]
    assert os.listdir(tmp_path) == ["folder"]


def test_equal_values_are_equal_bytes(tmp_path: Path) -> None:
    publish_json(tmp_path / "a", {"x": 1, "y": [1.5, "é"]})
    publish_json(tmp_path / "b", {"y": [1.5, "é"], "x": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert hash_object({"x": 1, "y": 2}) == hash_object({"y": 2, "x": 1})


def test_json_errors_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="missing.json: no such file"):
        read_json(tmp_path / "missing.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(InputError, match="bad.json: not valid JSON"):
        read_json(tmp_path / "bad.json")


def test_a_manifest_notices_a_missing_a_short_and_a_changed_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("abc")
    (tmp_path / "b.log").write_text("12:00")
    written = publish_manifest(tmp_path, "stage", {"in": "1"}, {"x": (1, 2)}, {"n": 3}, ignore=("*.log",))
    assert read_manifest(tmp_path) == written
    assert list(written.files) == ["a"]
    (tmp_path / "a").write_text("abd")
    assert read_manifest(tmp_path, "sizes") == written
    assert read_manifest(tmp_path, "hashes") is None
    (tmp_path / "a").write_text("ab")
    assert read_manifest(tmp_path, "sizes") is None
    (tmp_path / "a").unlink()
    assert read_manifest(tmp_path, "sizes") is None


@pytest.mark.parametrize("name", ["../b", "{0}/b", "c/../../b"])
def test_a_manifest_holds_nothing_outside_its_folder(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "folder"
    (folder / "c").mkdir(parents=True)
    for path in (folder / "a", tmp_path / "b"):
        path.write_text("abc")
    manifest = asdict(publish_manifest(folder, "stage", {}, {}))
    manifest["files"][name.format(tmp_path)] = manifest["files"]["a"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert read_manifest(folder, "sizes") is None


@pytest.mark.parametrize("body", ["[]", '{"stage": "s"}', "files as a list", "an entry as a number"])
def test_a_manifest_of_another_form_is_none(tmp_path: Path, body: str) -> None:
    forms = {"files as a list": ["a"], "an entry as a number": {"a": 3}}
    if body in forms:
        body = json.dumps({"stage": "s", "inputs": {}, "settings": {}, "files": forms[body]})
    (tmp_path / "manifest.json").write_text(body)
    assert read_manifest(tmp_path, "none") is None


def test_a_manifest_of_a_folder_that_does_not_last_notes_sizes_and_hashes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_text("abc")
    with monkeypatch.context() as patch:
        patch.setattr(storage, "hash_file", None)
        patch.setattr(storage, "sync_file", None)
        written = publish_manifest(tmp_path, "stage", {}, {}, lasting=False)
    assert written.files == {"a": {"bytes": 3}}
    assert read_manifest(tmp_path) == written
    assert read_manifest(tmp_path, "hashes") is None
    (tmp_path / "a").write_text("ab")
    assert read_manifest(tmp_path) is None


def test_a_folders_hash_is_that_of_its_names_and_bytes(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        (folder / "inside").mkdir(parents=True)
        (folder / "inside" / "weights").write_bytes(b"abc")
    assert hash_folder(one) == hash_folder(other)
    (other / "inside" / "weights").write_bytes(b"abcd")
    changed = hash_folder(other)
    assert changed != hash_folder(one)
    (other / "inside" / "weights").rename(other / "weights")
    assert hash_folder(other) != changed


def test_leftovers_of_killed_writers_are_removed(tmp_path: Path) -> None:
    (tmp_path / "file.partial-123").write_text("half")
    (tmp_path / "folder.partial-123").mkdir()
    (tmp_path / "whole").write_text("whole")
    assert len(remove_partials(tmp_path)) == 2
    assert os.listdir(tmp_path) == ["whole"]


def test_work_that_cannot_fit_is_refused(tmp_path: Path) -> None:
    require_free_space(tmp_path / "not" / "yet", 0)
    with pytest.raises(InputError, match="needs 1000000000.00 GB of disk"):
        require_free_space(tmp_path, 10**18)


def test_what_a_killed_start_has_written_is_not_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "weights").write_bytes(bytes(700))
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=400))
    assert bytes_below(tmp_path) == 700
    assert bytes_below(tmp_path / "checkpoints" / "weights") == 700
    assert bytes_below(tmp_path / "nothing") == 0
    require_free_space(tmp_path, 1000, beside_what_is_there=True)
    for needed, beside in ((1000, False), (1200, True)):
        with pytest.raises(InputError, match="of disk"):
            require_free_space(tmp_path, needed, beside_what_is_there=beside)


def test_what_a_folder_inside_has_published_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = tmp_path / "shards" / "shard-000000"
    shard.mkdir(parents=True)
    (shard / "vectors.npy").write_bytes(b"vectors")
    inner = publish_manifest(shard, "work", inputs={}, settings={})
    (tmp_path / "note.txt").write_bytes(b"note")
    plain = {name: hash_file(tmp_path / name) for name in ("note.txt", "shards/shard-000000/manifest.json")}
    hashed: list[str] = []
    monkeypatch.setattr(storage, "hash_file", lambda path: hashed.append(path.name) or hash_file(path))
    outer = publish_manifest(tmp_path, "stage", inputs={}, settings={})
    assert outer.files["shards/shard-000000/vectors.npy"] == inner.files["vectors.npy"]
    assert {name: outer.files[name]["sha256"] for name in plain} == plain
    assert sorted(hashed) == ["manifest.json", "note.txt"]


def test_a_file_inside_that_changed_since_is_read_again(tmp_path: Path) -> None:
    shard = tmp_path / "shard"
    shard.mkdir()
    (shard / "data.bin").write_bytes(b"old")
    publish_manifest(shard, "work", inputs={}, settings={})
    (shard / "data.bin").write_bytes(b"longer")
    outer = publish_manifest(tmp_path, "stage", inputs={}, settings={})
    assert outer.files["shard/data.bin"]["sha256"] == hash_file(shard / "data.bin")


def test_a_hash_of_a_file_just_written_is_used_once_and_not_for_other_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, changed = tmp_path / "kept.bin", tmp_path / "changed.bin"
    for path in (kept, changed):
        path.write_bytes(b"bytes")
        storage.remember_hash(path, hash_file(path))
    changed.write_bytes(b"other")
    os.utime(changed, ns=(1, 1))
    hashed: list[str] = []
    monkeypatch.setattr(storage, "hash_file", lambda path: hashed.append(path.name) or hash_file(path))
    for expected in (["changed.bin"], ["changed.bin", "kept.bin"]):
        manifest = publish_manifest(tmp_path, "stage", inputs={}, settings={})
        assert sorted(hashed) == expected
        assert manifest.files["changed.bin"]["sha256"] == hash_file(changed)
        hashed.clear()
