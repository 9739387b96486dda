import contextlib
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from training_world import RaggedSource, model_config, read_metrics, training_job

from megasbp.data.batch import Batch
from megasbp.errors import InputError
from megasbp.model.init import initialize
from megasbp.model.transformer import Transformer
from megasbp.parallel.runtime import Runtime
from megasbp.storage import read_manifest
from megasbp.training import trainer
from megasbp.training.checkpoint import load_model
from megasbp.training.checkpoint_files import checkpoint_steps, newest_checkpoint, read_state
from megasbp.training.metrics import TIME_FIELDS
from megasbp.training.trainer import MAXIMUM_SKIPS_IN_A_ROW, train
from megasbp.training.validation import validation_loss


class Interrupted(Exception):
    pass


class BreakingSource(RaggedSource):
    """The same samples as RaggedSource; something happens at the batch that begins with a sample."""

    def __init__(self, seed: int, at: int, signal_number: int | None = None) -> None:
        super().__init__(seed)
        self.at, self.signal_number = at, signal_number

    def batch(self, indices: np.ndarray) -> Batch:
        if len(indices) and indices[0] == self.at:
            if self.signal_number is None:
                raise Interrupted
            os.kill(os.getpid(), self.signal_number)
        return super().batch(indices)


def run(folder: Path, **changes: object):
    return train(training_job(folder, **changes), Runtime.start())


def interrupt(folder: Path, step: int, **changes: object) -> None:
    """Runs until the batch of `step` is asked for."""
    with pytest.raises(Interrupted):
        run(folder, source=BreakingSource(1, at=8 * (step - 1)), **changes)


def timeless(folder: Path) -> list[dict]:
    return [
        {key: value for key, value in row.items() if key not in TIME_FIELDS} for row in read_metrics(folder)
    ]


def weights(checkpoint: Path) -> dict[str, str]:
    manifest = read_manifest(checkpoint, check="hashes")
    return {name: entry["sha256"] for name, entry in manifest.files.items()}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted")
    run(folder)
    return folder


def test_a_run_learns_and_counts_what_it_read(uninterrupted: Path) -> None:
    result = run(uninterrupted)
    rows = read_metrics(uninterrupted)
    batch = RaggedSource(1).batch(np.arange(20 * 8))
    assert [row["step"] for row in rows] == list(range(1, 21))
    assert (result.steps, result.skipped_steps) == (20, 0)
    assert (result.input_tokens, result.valid_tokens) == (batch.input_tokens, batch.valid_tokens)
    assert result.valid_tokens == sum(row["valid_tokens"] for row in rows)
    assert result.final_validation_loss < rows[0]["loss"] - 0.5


def test_history_and_checkpoints_follow_the_schedule(uninterrupted: Path) -> None:
    result = run(uninterrupted)
    assert [entry["step"] for entry in result.history] == [5, 10, 15, 20]
    assert result.best_validation_loss == min(entry["validation_loss"] for entry in result.history)
    assert result.last_checkpoint.name == "step-00000020"
    assert checkpoint_steps(uninterrupted / "checkpoints") == {
        16,
        20,
        read_state(result.best_checkpoint)["step"],
    }


def test_the_validation_loss_is_that_of_the_saved_weights_weighted_by_tokens(uninterrupted: Path) -> None:
    result = run(uninterrupted)
    batch = RaggedSource(2).batch(np.arange(6))
    with torch.no_grad():
        nats = load_model(result.last_checkpoint)(batch.tokens, batch.positions, batch.segments, batch.labels)
    # One sum over 6 rows instead of two over 4 and 2.
    assert result.final_validation_loss == pytest.approx(float(nats) / batch.valid_tokens, rel=1e-6)


def test_validation_does_not_depend_on_the_batch_size() -> None:
    model = Transformer(model_config())
    initialize(model, 1)
    losses = [validation_loss(model, RaggedSource(2, samples=7), size, Runtime.start()) for size in (1, 3, 7)]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-6)  # fp32 sums in another order


def test_a_finished_job_reads_no_sample_again(uninterrupted: Path) -> None:
    source = RaggedSource(1)
    result = run(uninterrupted, source=source)
    assert result.steps == 20
    assert source.read == []


def test_results_hold_neither_times_nor_paths(uninterrupted: Path, tmp_path: Path) -> None:
    run(tmp_path / "elsewhere")
    here, there = uninterrupted / "result.json", tmp_path / "elsewhere" / "result.json"
    assert here.read_bytes() == there.read_bytes()
    assert (uninterrupted / "job.json").read_bytes() == (tmp_path / "elsewhere" / "job.json").read_bytes()


@pytest.mark.parametrize("steps", [(3,), (5,), (9, 10, 14, 20)])
def test_an_interrupted_run_ends_bit_equal_to_the_uninterrupted_one(
    tmp_path: Path, uninterrupted: Path, steps: tuple[int, ...]
) -> None:
    for step in steps:
        interrupt(tmp_path, step)
    result = run(tmp_path)
    assert timeless(tmp_path) == timeless(uninterrupted)
    assert (tmp_path / "result.json").read_bytes() == (uninterrupted / "result.json").read_bytes()
    for step in checkpoint_steps(uninterrupted / "checkpoints"):
        name = f"checkpoints/step-{step:08d}"
        assert weights(tmp_path / name) == weights(uninterrupted / name)
    assert result.last_checkpoint.is_dir()


def test_resuming_reads_only_the_samples_that_are_left(tmp_path: Path) -> None:
    interrupt(tmp_path, 12)
    resumed = read_state(newest_checkpoint(tmp_path / "checkpoints"))["step"]
    source = RaggedSource(1)
    run(tmp_path, source=source)
    assert resumed in {8, 10}
    assert sorted(source.read) == list(range(resumed * 8, 20 * 8))


def test_a_damaged_newest_checkpoint_costs_steps_but_changes_nothing(
    tmp_path: Path, uninterrupted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupt(tmp_path, 14)
    newest = newest_checkpoint(tmp_path / "checkpoints")
    (newest / "state.json").write_text("{}")
    run(tmp_path)
    assert f"{newest.name} is skipped" in capsys.readouterr().err
    assert timeless(tmp_path) == timeless(uninterrupted)
    assert (tmp_path / "result.json").read_bytes() == (uninterrupted / "result.json").read_bytes()


def test_a_finished_job_whose_checkpoint_is_gone_is_made_whole_again(
    tmp_path: Path, uninterrupted: Path
) -> None:
    result = run(tmp_path)
    (result.last_checkpoint / "manifest.json").unlink()
    again = run(tmp_path)
    assert again == result
    assert weights(again.last_checkpoint) == weights(run(uninterrupted).last_checkpoint)


def test_sigterm_writes_a_checkpoint_and_the_run_continues_bit_equal(
    tmp_path: Path, uninterrupted: Path
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended:
        run(tmp_path, source=BreakingSource(1, at=8 * 11, signal_number=signal.SIGTERM))
    assert ended.value.code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == before
    stopped = newest_checkpoint(tmp_path / "checkpoints")
    assert stopped is not None
    assert read_state(stopped)["step"] not in {4, 8, 12, 16, 20}
    run(tmp_path)
    assert timeless(tmp_path) == timeless(uninterrupted)
    assert (tmp_path / "result.json").read_bytes() == (uninterrupted / "result.json").read_bytes()
    assert checkpoint_steps(tmp_path / "checkpoints") == checkpoint_steps(uninterrupted / "checkpoints")


def test_sigterm_at_the_very_end_ends_the_process_behind_a_whole_result(
    tmp_path: Path, uninterrupted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = trainer._Run._save

    def asked_to_stop(self: trainer._Run) -> None:
        if self.state.step == self.job.steps:
            os.kill(os.getpid(), signal.SIGTERM)
        save(self)

    monkeypatch.setattr(trainer._Run, "_save", asked_to_stop)
    with pytest.raises(SystemExit) as ended:
        run(tmp_path)
    assert ended.value.code == 128 + signal.SIGTERM
    assert (tmp_path / "result.json").read_bytes() == (uninterrupted / "result.json").read_bytes()
    assert run(tmp_path).final_validation_loss == run(uninterrupted).final_validation_loss


def test_a_checkpoint_of_another_job_is_not_resumed_from(tmp_path: Path) -> None:
    interrupt(tmp_path, 9)
    (tmp_path / "job.json").unlink()
    with pytest.raises(InputError, match="checkpoint of another job"):
        run(tmp_path, seed=99)


@pytest.mark.parametrize("log_every", [7, 100])
def test_logging_less_often_changes_no_row(tmp_path: Path, uninterrupted: Path, log_every: int) -> None:
    interrupt(tmp_path, 14, training={"log_every": log_every})
    run(tmp_path, training={"log_every": log_every})
    assert timeless(tmp_path) == timeless(uninterrupted)


class OverfittedSource(RaggedSource):
    """Four rows for ever: held-out loss soon rises."""

    def batch(self, indices: np.ndarray) -> Batch:
        return super().batch(indices % 4)


def test_early_stop_ends_the_run_and_keeps_the_best_checkpoint(tmp_path: Path) -> None:
    changes = {
        "source": OverfittedSource(1),
        "steps": 100,
        "training": {"validations": 20, "schedule": "constant", "learning_rate": 3e-2, "warmup_share": 0.0},
        "early_stop_patience": 2,
    }
    result = run(tmp_path, **changes)
    losses = [entry["validation_loss"] for entry in result.history]
    assert result.steps < 100
    assert min(losses) == losses[-3]
    assert result.best_validation_loss == losses[-3]
    assert read_state(result.best_checkpoint)["history"][-1]["validation_loss"] == losses[-3]
    assert read_state(result.last_checkpoint)["step"] == result.steps
    assert run(tmp_path, **changes) == result


def test_without_validation_the_best_checkpoint_is_the_last(tmp_path: Path) -> None:
    result = run(tmp_path, validation=None, steps=3)
    assert result.best_checkpoint == result.last_checkpoint
    assert (result.best_validation_loss, result.final_validation_loss, result.history) == (None, None, [])


def test_an_initial_checkpoint_gives_the_weights_and_a_fresh_optimiser(
    tmp_path: Path, uninterrupted: Path
) -> None:
    start = run(uninterrupted).last_checkpoint
    changes = {"initial_checkpoint": start, "seed": 99, "source": RaggedSource(4), "steps": 1}
    run(tmp_path, training={"schedule": "constant", "warmup_share": 0.0}, **changes)
    batch = RaggedSource(4).batch(np.arange(8))
    with torch.no_grad():
        nats = load_model(start)(batch.tokens, batch.positions, batch.segments, batch.labels)
    row = read_metrics(tmp_path)[0]
    assert row["loss"] == pytest.approx(float(nats) / batch.valid_tokens, rel=1e-6)
    before, after = load_model(start), load_model(tmp_path / "checkpoints" / "step-00000001")
    pairs = zip(after.parameters(), before.parameters(), strict=True)
    moved = max(float((new.detach() - old.detach()).abs().max()) for new, old in pairs)
    # The first update of AdamW without old moments is the rate, whatever the gradient; plus decay.
    assert moved == pytest.approx(1e-2, rel=0.2)


class UnlabelledSource(RaggedSource):
    """No labels in some steps: the mean loss over no token is not a number."""

    def __init__(self, seed: int, unlabelled: range) -> None:
        super().__init__(seed)
        self.unlabelled = unlabelled

    def batch(self, indices: np.ndarray) -> Batch:
        batch = super().batch(indices)
        for row, index in enumerate(indices):
            if index // 8 + 1 in self.unlabelled:
                batch.labels[row] = -100
        return batch


def test_a_step_that_is_not_finite_is_skipped_counted_and_written_as_null(tmp_path: Path) -> None:
    source = UnlabelledSource(1, range(4, 6))
    result = run(tmp_path, source=source, steps=8)
    rows = read_metrics(tmp_path)
    assert [row["step"] for row in rows if row["skipped"]] == [4, 5]
    assert [row["step"] for row in rows if row["loss"] is None] == [4, 5]
    assert result.skipped_steps == 2


def test_skipped_steps_survive_an_interruption(tmp_path: Path) -> None:
    source = UnlabelledSource(1, range(4, 6))
    whole = run(tmp_path / "whole", source=source, steps=8, training={"checkpoints": 8})
    broken = UnlabelledSource(1, range(4, 6))
    inner = broken.batch

    def fail(indices: np.ndarray) -> Batch:
        if indices[0] == 6 * 8:
            raise Interrupted
        return inner(indices)

    broken.batch = fail
    with contextlib.suppress(Interrupted):
        run(tmp_path / "cut", source=broken, steps=8, training={"checkpoints": 8})
    resumed = run(tmp_path / "cut", source=source, steps=8, training={"checkpoints": 8})
    assert weights(resumed.last_checkpoint) == weights(whole.last_checkpoint)
    assert timeless(tmp_path / "cut") == timeless(tmp_path / "whole")


def test_too_many_such_steps_in_a_row_end_the_run_with_the_mend(tmp_path: Path) -> None:
    source = UnlabelledSource(1, range(3, 100))
    with pytest.raises(InputError, match=r"not finite in 10 steps in a row, up to step 12; lower training"):
        run(tmp_path, source=source, training={"validations": 1, "checkpoints": 1})
    assert len(read_metrics(tmp_path)) == 2 + MAXIMUM_SKIPS_IN_A_ROW


def test_such_steps_are_counted_also_between_two_reports(tmp_path: Path) -> None:
    source = UnlabelledSource(1, range(3, 14))
    with pytest.raises(InputError, match=r"not finite in 11 steps in a row, up to step 13; lower training"):
        run(tmp_path, source=source, training={"validations": 1, "checkpoints": 1, "log_every": 100})


def test_a_validation_loss_that_is_not_finite_ends_the_run_at_that_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "validation_loss", lambda *given: float("nan"))
    words = r"diverged: the validation loss is not finite at step 5; lower training\.learning_rate \(now 0\.0"
    with pytest.raises(trainer.Diverged, match=words) as ended:
        run(tmp_path, training={"validations": 4})
    assert (ended.value.state.step, ended.value.state.history) == (5, [])
    rows = read_metrics(tmp_path)
    assert rows[-1]["step"] == 5
    assert "validation_loss" not in rows[-1]


def test_progress_is_one_line_at_first_and_at_the_end_when_not_on_a_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path, steps=6)
    attention, *lines = capsys.readouterr().err.splitlines()
    assert attention.split("  ")[1].startswith("attention torch (the PyTorch reference")
    assert [line.split("  ")[1] for line in lines] == ["step 1/6", "step 6/6"]
    assert all(word in lines[-1] for word in ("loss", "norm", "lr", "tokens/s", "left", "validation"))


def test_training_in_bf16_learns_too(tmp_path: Path, uninterrupted: Path) -> None:
    exact = run(uninterrupted).final_validation_loss
    coarse = run(tmp_path, training={"precision": "bf16"}).final_validation_loss
    # Twenty steps from the same start: rounding at 8 bits moves the loss by percents, not by its drop of 20%.
    assert coarse == pytest.approx(exact, rel=0.05)
    assert coarse != exact
