import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from training_world import model_config, training_config

from megasbp.errors import InputError
from megasbp.model.init import initialize
from megasbp.model.transformer import Transformer
from megasbp.parallel.runtime import Runtime
from megasbp.storage import read_manifest
from megasbp.training.checkpoint import (
    checkpoint_folder,
    checkpoint_steps,
    checkpoint_tensors,
    load_model,
    load_tensors,
    newest_checkpoint,
    read_state,
    remove_checkpoints,
    save_checkpoint,
)
from megasbp.training.optimizer import MOMENTS, build_optimizer


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


DAMAGES = [flip_a_byte, cut_short, lose_the_manifest, edit_the_state, lose_the_weights]


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


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: Callable[[Path], None]
) -> None:
    write_checkpoint(tmp_path, 1)
    whole, damaged = write_checkpoint(tmp_path, 2), write_checkpoint(tmp_path, 3)
    damage(damaged)
    assert newest_checkpoint(tmp_path) == whole
    message = capsys.readouterr().err
    assert "step-00000003 is skipped" in message
    assert "damaged or partial" in message
    assert "step-00000002 is skipped" not in message


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_not_loaded(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    folder = write_checkpoint(tmp_path, 3)
    damage(folder)
    with pytest.raises(InputError, match="damaged or partial checkpoint; name another one, or train again"):
        load_model(folder)


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
