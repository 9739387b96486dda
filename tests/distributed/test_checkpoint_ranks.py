"""Checkpoints of four ranks: who writes, who checks, and what is left when one of them cannot go on."""

import errno
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_cases import BROKEN_STEP, RANKS
from launch import launch

from megasbp.storage import read_manifest
from megasbp.training.checkpoint import load_model
from megasbp.training.checkpoint_files import checkpoint_folder, checkpoint_steps
from megasbp.training.conversion import export_checkpoint, import_checkpoint


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("checkpoints")
    launch("checkpoint_cases.py", target, seconds=200)
    return target


@pytest.fixture(scope="module")
def facts(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "facts.json").read_text())


def checkpoints(job: Path) -> dict[int, dict[str, Any]]:
    """Files and hashes of each checkpoint of a job."""
    parent = job / "checkpoints"
    manifests = {
        step: read_manifest(checkpoint_folder(parent, step), "hashes") for step in checkpoint_steps(parent)
    }
    return {step: manifest.files for step, manifest in manifests.items()}


def test_each_rank_writes_its_own_file(facts: dict[str, Any]) -> None:
    shards = [name for name in facts["shared work"]["files"] if name.endswith(".safetensors")]
    assert facts["shared work"]["written"] == [[name] for name in shards]
    assert len(shards) == RANKS


def test_the_ranks_share_the_checking_of_the_newest_checkpoint(facts: dict[str, Any]) -> None:
    work = facts["shared work"]
    assert set(work["newest"]) == {"step-00000012"}
    checked = [name for names in work["checked"] for name in names]
    assert sorted(checked) == sorted(set(work["files"]) - {"manifest.json"})
    assert max(len(names) for names in work["checked"]) == 2  # five files, four ranks


def test_a_full_disk_on_one_rank_ends_the_run_on_all_and_leaves_the_earlier_checkpoints(
    folder: Path, facts: dict[str, Any]
) -> None:
    assert facts["full disk"]["codes"] == [errno.ENOSPC] * RANKS
    earlier = {checkpoint_folder(folder, step).name for step in range(2, BROKEN_STEP, 2)}
    assert set(facts["full disk"]["left"]) == earlier


def test_a_rank_killed_while_it_writes_leaves_the_earlier_checkpoints(folder: Path) -> None:
    steps = json.loads((folder / "steps-after-kill.json").read_text())
    assert steps == list(range(2, BROKEN_STEP, 2))


@pytest.mark.parametrize("job", ["full", "killed"])
def test_after_either_the_run_ends_with_the_checkpoints_of_the_uninterrupted_one(
    folder: Path, job: str
) -> None:
    assert checkpoints(folder / job) == checkpoints(folder / "uninterrupted")


def test_ranks_may_hold_different_tensors(facts: dict[str, Any]) -> None:
    assert facts["different"] == [True] * RANKS


def test_parts_of_four_ranks_are_exported_as_whole_tensors(folder: Path, tmp_path: Path) -> None:
    checkpoint = checkpoint_folder(folder / "uninterrupted" / "checkpoints", 12)
    export_checkpoint(checkpoint, tmp_path / "theirs", shard_bytes=4_000)
    import_checkpoint(tmp_path / "theirs", tmp_path / "again")
    found, expected = load_model(tmp_path / "again"), load_model(checkpoint)
    for (name, ours), theirs in zip(found.named_parameters(), expected.parameters(), strict=True):
        assert torch.equal(ours, theirs), name
