from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from training_world import RaggedSource, model_config, training_config, training_job

from megasbp.errors import InputError
from megasbp.kernels.attention_backend import Choice
from megasbp.parallel.runtime import Runtime
from megasbp.training import job, result
from megasbp.training.trainer import train


class TwoDataRanks(Runtime):
    """Arithmetic of two ranks without a process group."""

    @property
    def data_ranks(self) -> int:
        return 2


@pytest.mark.parametrize(
    ("changes", "place", "mend"),
    [
        ({"steps": 0}, "steps is 0", "at least 1"),
        ({"training": {"sequence_length": 32}}, "sequence_length is 32", "set it to 24"),
        ({"model": {"maximum_positions": 16}}, "maximum_positions is 16", "at least 24"),
        ({"validation": RaggedSource(2, samples=0)}, "validation source is empty", "more documents"),
        ({"early_stop_patience": 0}, "early_stop_patience is 0", "at least 1"),
        ({"early_stop_patience": 2, "validation": None}, "early_stop_patience", "needs a validation source"),
        ({"initial_checkpoint": Path("nowhere")}, "nowhere: missing checkpoint", "name another one"),
        ({"model": {"width": 2**20, "feed_forward": 2**22}}, "GB of disk", "free some space"),
    ],
)
def test_an_impossible_job_is_refused_before_anything_is_written(
    tmp_path: Path, changes: dict[str, Any], place: str, mend: str
) -> None:
    with pytest.raises(InputError, match=place) as refusal:
        train(training_job(tmp_path / "job", **changes), Runtime.start())
    assert mend in str(refusal.value)
    assert not (tmp_path / "job").exists()


@pytest.mark.parametrize(
    ("training", "on_gpu", "text"),
    [
        ({}, False, "cpp (C++ for this CPU, each segment on its own)"),
        ({"attention": "torch"}, False, "torch (asked for)"),
        ({"compile": True}, False, "torch (the PyTorch reference, which torch.compile fuses)"),
        ({}, True, "triton (by bounds), of rows that are one segment sdpa (fast)"),
    ],
)
def test_what_computes_attention_is_told_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, training: dict[str, Any], on_gpu: bool, text: str
) -> None:
    runtime = Runtime.start()
    if on_gpu:
        runtime = Runtime(0, 1, torch.device("cuda"))
        choices = {True: Choice("triton", "by bounds"), False: Choice("sdpa", "fast")}
        monkeypatch.setattr(job, "_attention_choice", lambda *_, segmented: choices[segmented])
    one = training_job(tmp_path, training=training, model={"head_dim": 32})
    assert job.attention_text(one, runtime) == text


def test_a_global_batch_that_the_ranks_cannot_share_is_refused_with_the_nearest_legal_one(
    tmp_path: Path,
) -> None:
    one = Runtime.start()
    job = training_job(tmp_path / "job", training={"global_batch": 12, "micro_batch": 4})
    with pytest.raises(InputError, match=r"training.global_batch is 12, .* 2 ranks; set global_batch to 16"):
        train(job, TwoDataRanks(one.rank, one.world_size, one.device))
    assert not (tmp_path / "job").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"global_batch": 10, "micro_batch": 4}, "set global_batch to 8"),
        ({"global_batch": 2, "micro_batch": 4}, "set global_batch to 4"),
        ({"learning_rate": 0}, "learning_rate"),
        ({"warmup_share": 1.0}, "warmup_share"),
        ({"schedule": "linear"}, "schedule"),
        ({"learning_rat": 1.0}, "learning_rat"),
    ],
)
def test_an_impossible_setting_is_refused_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        training_config(**changes)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"seed": 6}, "seed"),
        ({"steps": 3}, "steps"),
        ({"source": RaggedSource(3)}, "source"),
        ({"validation": None}, "validation source"),
        ({"training": {"learning_rate": 0.5}}, "training.learning_rate"),
        ({"model": {"layers": 1}}, "model.layers"),
        ({"tokenizer_hash": "other"}, "tokenizer"),
    ],
)
def test_a_folder_of_another_job_is_refused_and_left_alone(
    tmp_path: Path, changes: dict[str, Any], name: str
) -> None:
    train(training_job(tmp_path, steps=2), Runtime.start())
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    with pytest.raises(InputError, match=f"holds another job, whose {name} is .*another folder"):
        train(training_job(tmp_path, **{"steps": 2, **changes}), Runtime.start())
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_how_a_job_is_carried_out_may_change_between_starts(tmp_path: Path) -> None:
    first = train(training_job(tmp_path, steps=2), Runtime.start())
    changed = training_job(tmp_path, steps=2, training={"micro_batch": 2, "keep_checkpoints": 1})
    assert train(changed, Runtime.start()) == first


def test_an_initial_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    first = train(training_job(tmp_path / "first", steps=1), Runtime.start())
    job = training_job(
        tmp_path / "second", model={"feed_forward": 48}, initial_checkpoint=first.last_checkpoint
    )
    with pytest.raises(
        InputError, match=r"model.feed_forward is 32, the job's is 48; set model.feed_forward"
    ):
        train(job, Runtime.start())
    assert not (tmp_path / "second").exists()


def test_an_initial_checkpoint_with_a_shorter_context_is_taken(tmp_path: Path) -> None:
    first = train(training_job(tmp_path / "first", steps=1), Runtime.start())
    longer = model_config(maximum_positions=128)
    job = training_job(tmp_path / "second", steps=1, initial_checkpoint=first.last_checkpoint)
    job.model = longer
    assert train(job, Runtime.start()).steps == 1


def test_a_result_that_a_host_sees_late_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished = train(training_job(tmp_path, steps=1), Runtime.start())
    seen = iter([None, None, finished])
    monkeypatch.setattr(result, "read_result", lambda folder: next(seen))
    assert result.wait_for_result(tmp_path) is finished
    monkeypatch.setattr(result, "read_result", lambda folder: None)
    with pytest.raises(InputError, match="does not see after 0.1 s; do all hosts share that folder"):
        result.wait_for_result(tmp_path, seconds=0.1)
