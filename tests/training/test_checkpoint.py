import errno
import json
import os
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from training_world import model_config, training_config

from megasbp.errors import InputError
from megasbp.model.init import initialize
from megasbp.model.transformer import Transformer
from megasbp.parallel.runtime import Runtime
from megasbp.storage import hash_file, read_manifest
from megasbp.training.adamw import MOMENTS
from megasbp.training.checkpoint import checkpoint_tensors, load_model, load_tensors, save_checkpoint
from megasbp.training.checkpoint_files import (
    checkpoint_folder,
    checkpoint_steps,
    newest_checkpoint,
    read_state,
    remove_checkpoints,
    require_whole,
)
from megasbp.training.optimizer import build_optimizer


def write_checkpoint(parent: Path, step: int, best_step: int | None = None, seed: int = 0) -> Path:
    model = Transformer(model_config())
    initialize(model, seed)
    state = {"step": step, "best_step": best_step, "model": model_config().model_dump(mode="json")}
    save_checkpoint(checkpoint_folder(parent, step), checkpoint_tensors(model), state, Runtime.start())
    return checkpoint_folder(parent, step)


def flip_a_byte(folder: Path) -> None:
    (path,) = folder.glob("*.safetensors")
    data = bytearray(path.read_bytes())
    data[-7] ^= 1
    path.write_bytes(data)


def cut_short(folder: Path) -> None:
    (path,) = folder.glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-100])


def lose_the_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def edit_the_state(folder: Path) -> None:
    path = folder / "state.json"
    path.write_text(path.read_text().replace('"step": 3', '"step": 4'))


def lose_the_weights(folder: Path) -> None:
    for path in folder.glob("*.safetensors"):
        path.unlink()


def cut_the_state(folder: Path) -> None:
    path = folder / "state.json"
    path.write_bytes(path.read_bytes()[:-20])


def add_a_file(folder: Path) -> None:
    shutil.copyfile(next(folder.glob("*.safetensors")), folder / "shard-00009.safetensors")


def edit_manifest(folder: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    edit(manifest)
    path.write_text(json.dumps(manifest))


def name_in_manifest(folder: Path, name: str) -> None:
    """The manifest names `name` as well, with the right hash of a file that is there."""
    inside = "state.json"
    edit_manifest(folder, lambda manifest: manifest["files"].update({name: manifest["files"][inside]}))


def climb_out(folder: Path) -> None:
    shutil.copyfile(folder / "state.json", folder.parent / "outside.json")
    name_in_manifest(folder, "../outside.json")


def name_an_absolute_path(folder: Path) -> None:
    shutil.copyfile(folder / "state.json", folder.parent / "outside.json")
    name_in_manifest(folder, str(folder.parent / "outside.json"))


def link_out(folder: Path) -> None:
    (path,) = folder.glob("*.safetensors")
    path.rename(folder.parent / "outside.safetensors")
    path.symlink_to(folder.parent / "outside.safetensors")


def take_the_manifest_of_another_stage(folder: Path) -> None:
    edit_manifest(folder, lambda manifest: manifest.update(stage="datasets"))


# What is done to a checkpoint -> how the message names it.
DAMAGES: dict[Callable[[Path], None], str] = {
    flip_a_byte: "partial checkpoint: shard-.* has other bytes",
    cut_short: "partial checkpoint: shard-.* has another size",
    lose_the_manifest: "partial checkpoint: manifest.json is missing",
    edit_the_state: "partial checkpoint: state.json has other bytes",
    lose_the_weights: "partial checkpoint: shard-.* is missing",
    cut_the_state: "partial checkpoint: state.json has another size",
    add_a_file: "holds shard-00009.safetensors, which its manifest does not name; remove it",
    climb_out: r"partial checkpoint: its manifest names '\.\./outside.json'",
    name_an_absolute_path: "partial checkpoint: its manifest names '/.*/outside.json'",
    link_out: "partial checkpoint: shard-.* is no plain file",
    take_the_manifest_of_another_stage: "holds a stage 'datasets', not a checkpoint",
}
damages = pytest.mark.parametrize(
    ("damage", "message"), DAMAGES.items(), ids=lambda item: getattr(item, "__name__", "")
)


def test_a_full_disk_is_an_os_error_and_leaves_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_checkpoint(tmp_path, 3, seed=1)
    before = read_manifest(folder, check="hashes")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_checkpoint(tmp_path, 3, seed=2)
    monkeypatch.undo()
    assert read_manifest(folder, check="hashes") == before
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def test_weights_and_moments_come_back_bit_by_bit(tmp_path: Path) -> None:
    model = Transformer(model_config())
    initialize(model, 1)
    optimizer = build_optimizer(model, training_config())
    for number, state in enumerate(optimizer.state.values()):
        for moment in MOMENTS:
            state[moment].fill_(number + 0.1)
    saved = {name: tensor.clone() for name, tensor in checkpoint_tensors(model, optimizer).items()}
    save_checkpoint(tmp_path / "one", saved, {}, Runtime.start())
    empty = {name: torch.zeros_like(tensor) for name, tensor in saved.items()}
    load_tensors(tmp_path / "one", empty)
    assert all(torch.equal(empty[name], tensor) for name, tensor in saved.items())


def test_equal_states_are_equal_bytes(tmp_path: Path) -> None:
    manifests = [read_manifest(write_checkpoint(tmp_path / str(copy), 3)) for copy in range(6)]
    assert len({json.dumps(manifest.files, sort_keys=True) for manifest in manifests}) == 1


def test_a_checkpoint_holds_safetensors_and_json_only(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, 3)
    assert {path.suffix for path in folder.iterdir()} == {".safetensors", ".json"}
    assert set(read_manifest(folder, check="hashes").files) == {
        path.name for path in folder.iterdir() if path.name != "manifest.json"
    }


def test_load_model_gives_the_whole_model_in_eval_mode(tmp_path: Path) -> None:
    model = load_model(write_checkpoint(tmp_path, 3, seed=7))
    expected = Transformer(model_config())
    initialize(expected, 7)
    assert not model.training
    assert model.config == model_config()
    assert all(
        torch.equal(left, right)
        for left, right in zip(model.parameters(), expected.parameters(), strict=True)
    )


def test_a_whole_checkpoint_of_another_model_is_refused_by_name(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, 3)
    other = Transformer(model_config(feed_forward=48))
    with pytest.raises(InputError, match="does not hold this model"):
        load_tensors(folder, checkpoint_tensors(other))


@damages
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: Callable[[Path], None], message: str
) -> None:
    write_checkpoint(tmp_path, 1)
    whole, damaged = write_checkpoint(tmp_path, 2), write_checkpoint(tmp_path, 3)
    damage(damaged)
    assert newest_checkpoint(tmp_path) == whole
    said = capsys.readouterr().err
    assert re.search(f"step-00000003 is skipped: .*{message}", said)
    assert "step-00000002 is skipped" not in said


@damages
def test_a_damaged_checkpoint_is_not_loaded(
    tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    folder = write_checkpoint(tmp_path, 3)
    damage(folder)
    with pytest.raises(InputError, match=message):
        load_model(folder)


@pytest.mark.parametrize("damage", [climb_out, name_an_absolute_path, link_out])
def test_nothing_outside_a_checkpoint_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[[Path], None]
) -> None:
    folder = write_checkpoint(tmp_path, 3)
    damage(folder)
    opened: list[str] = []
    monkeypatch.setattr(
        "megasbp.training.checkpoint_files.hash_file",
        lambda path: opened.append(str(Path(path).resolve())) or hash_file(path),
    )
    with pytest.raises(InputError):
        require_whole(folder)
    assert not [path for path in opened if Path(path).parent != folder]


def test_a_file_that_the_disk_does_not_give_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: Path) -> str:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    folder = write_checkpoint(tmp_path, 3)
    monkeypatch.setattr("megasbp.training.checkpoint_files.hash_file", fails)
    with pytest.raises(InputError, match=r"partial checkpoint: .* cannot be read"):
        require_whole(folder)


def test_neither_saving_nor_loading_pickles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: Any, **_options: Any) -> None:
        raise AssertionError("pickled")

    for module, name in ((pickle, "dump"), (pickle, "dumps"), (pickle, "load"), (pickle, "loads")):
        monkeypatch.setattr(module, name, refuse)
    for name in ("save", "load"):
        monkeypatch.setattr(torch, name, refuse)
    load_model(write_checkpoint(tmp_path, 3))


def test_a_checkpoint_whose_best_predecessor_is_gone_is_skipped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    oldest = write_checkpoint(tmp_path, 1, best_step=1)
    best = write_checkpoint(tmp_path, 2, best_step=2)
    newest = write_checkpoint(tmp_path, 3, best_step=2)
    assert newest_checkpoint(tmp_path) == newest
    shutil.rmtree(best)
    assert newest_checkpoint(tmp_path) == oldest
    assert "step-00000003 is skipped" in capsys.readouterr().err


def test_a_folder_without_checkpoints_has_no_newest_one(tmp_path: Path) -> None:
    (tmp_path / "step-00000009.partial-1").mkdir()
    assert newest_checkpoint(tmp_path) is None
    assert newest_checkpoint(tmp_path / "missing") is None


def test_removal_leaves_exactly_the_kept_ones(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        write_checkpoint(tmp_path, step)
    remove_checkpoints(tmp_path, keep={1, 3, 8})
    assert checkpoint_steps(tmp_path) == {1, 3}
    assert {path.name for path in tmp_path.iterdir()} == {"step-00000001", "step-00000003"}


def test_writing_over_a_checkpoint_replaces_it_whole(tmp_path: Path) -> None:
    lose_the_weights(write_checkpoint(tmp_path, 3, seed=1))
    folder = write_checkpoint(tmp_path, 3, seed=2)
    assert read_state(folder)["step"] == 3
    assert read_manifest(folder, check="hashes") is not None
