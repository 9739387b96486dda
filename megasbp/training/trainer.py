"""The trainer: one loop for every model of the project, on one process or on many.

Everything that a run carries from one step to the next is in `RunState`, the parameters and AdamW's moments;
the data are a pure function of the step. So a run that continues from a checkpoint repeats the uninterrupted
one.
"""

import math
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import torch

from megasbp.data.batch import Batch
from megasbp.data.loader import Loader
from megasbp.errors import InputError
from megasbp.parallel.parallelize import BlockOptions, parallel_model
from megasbp.parallel.runtime import Runtime
from megasbp.parallel.shards import initialize_shards
from megasbp.storage import remove_partials
from megasbp.training.checkpoint import checkpoint_tensors, load_tensors
from megasbp.training.checkpoint_files import (
    checkpoint_folder,
    newest_checkpoint,
    read_state,
    remove_checkpoints,
)
from megasbp.training.checkpoint_writer import CheckpointWriter
from megasbp.training.gradients import accumulate_gradients
from megasbp.training.job import TrainingJob, attention_text, check_job, claim_folder
from megasbp.training.optimizer import build_optimizer, follow_table, optimizer_step, set_update_count
from megasbp.training.profile import PROFILES, ProfilerWindow
from megasbp.training.recorder import Recorder
from megasbp.training.result import CHECKPOINTS, TrainingResult, publish_result, read_result, wait_for_result
from megasbp.training.schedule import (
    best_step,
    evenly_spaced,
    learning_rate,
    patience_is_over,
    retained_steps,
)
from megasbp.training.stop_signal import STOPPED_STATUS, StopSignal
from megasbp.training.utilisation import Utilisation, peak_tflops
from megasbp.training.validation import validation_loss

__all__ = ["Diverged", "TrainingJob", "TrainingResult", "train"]

MAXIMUM_SKIPS_IN_A_ROW = 10


@dataclass
class RunState:
    """Where a run stands after `step` steps, counted over all ranks; part of each checkpoint's state.json."""

    step: int = 0
    input_tokens: int = 0
    valid_tokens: int = 0
    skipped_steps: int = 0
    skipped_in_a_row: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)


class Diverged(InputError):
    """The loss of a job is not finite any more; the same job would end there again.

    Attributes:
        finding: what was not finite, and where, without the mend.
        state: where the run stood; its history ends before that.
    """

    def __init__(self, job: TrainingJob, finding: str, state: RunState) -> None:
        super().__init__(
            f"{job.name}: diverged: {finding}; lower training.learning_rate "
            f"(now {job.training.learning_rate:g})"
        )
        self.finding, self.state = finding, state


def train(job: TrainingJob, runtime: Runtime) -> TrainingResult:
    """Trains, or continues an interrupted run in the same folder, or returns the result of a finished one.

    All ranks call it. On SIGTERM a checkpoint is written and SystemExit (status 143) raised.

    Raises:
        InputError: the job is impossible or the folder holds another one (nothing is written then).
        Diverged: the validation loss is not finite, or loss or gradient stayed so for too many steps; raised
            on all ranks.
        OSError: a checkpoint could not be written, on whichever rank; raised on all, the earlier ones stay.
    """
    check_job(job, runtime)
    fingerprint = claim_folder(job, runtime)
    if not _is_finished(job, runtime):
        _Run(job, runtime, fingerprint).complete()
    return wait_for_result(job.folder)


def _is_finished(job: TrainingJob, runtime: Runtime) -> bool:
    """Whether the main rank finds a result. Other hosts may see an older state of a shared file system."""
    found = runtime.is_main and read_result(job.folder) is not None
    return bool(runtime.sum(torch.tensor(int(found))))


class _Run:
    """One start of a job: the model on its ranks, what is due at which step, and where the run stands."""

    def __init__(self, job: TrainingJob, runtime: Runtime, fingerprint: str) -> None:
        self.job, self.runtime, self.fingerprint = job, runtime, fingerprint
        self.checkpoints = Path(job.folder) / CHECKPOINTS
        self.scheduled = evenly_spaced(job.steps, job.training.checkpoints)
        validations = job.training.validations if job.validation else 0
        self.validation_steps = evenly_spaced(job.steps, validations)
        self.state, self.saved_step = RunState(), 0

        start = self._newest()
        training = job.training
        self.model = parallel_model(
            job.model,
            runtime,
            training.compute_dtype,
            BlockOptions(
                training.activation_checkpointing, training.compile, training.fp8, training.attention
            ),
            training.sequence_length,
            training.z_loss,
        )
        self.optimizer = build_optimizer(self.model, job.training)
        self.tensors = checkpoint_tensors(self.model, self.optimizer)
        if start is not None:
            self._resume(start)
        elif job.initial_checkpoint is not None:
            load_tensors(job.initial_checkpoint, checkpoint_tensors(self.model), runtime)
        else:
            initialize_shards(self.model, job.model, job.seed)
        follow_table(self.model, self.optimizer)
        self.model.train()
        self.writer = CheckpointWriter(self.tensors, runtime)
        peak = training.peak_tflops or peak_tflops(runtime.device)
        self.recorder = Recorder(
            job.folder,
            job.name,
            job.steps,
            self.state.step,
            writes=runtime.is_main,
            utilisation=Utilisation(job.model, training.sequence_length, peak, runtime.world_size),
            device=runtime.device,
        )
        self.profiler = ProfilerWindow(job.folder, runtime.rank, training.profile_steps)

    def complete(self) -> None:
        """Runs the remaining steps and publishes the result."""
        job, state = self.job, self.state
        if self.runtime.is_main:
            print(f"{job.name}  attention {attention_text(job, self.runtime)}", file=sys.stderr, flush=True)
        with self.recorder, self.profiler, StopSignal() as stop, self.writer, self._batches() as batches:
            while state.step < job.steps and not patience_is_over(state.history, job.early_stop_patience):
                flags = torch.tensor([stop.received, self.writer.failed], dtype=torch.int64)
                stopped, failed = self.runtime.sum(flags).tolist()
                if failed:
                    self.writer.wait()
                if stopped:
                    self._stop()
                with self.profiler.step(state.step + 1):
                    started = time.perf_counter()
                    batch = next(batches)
                    self._step(batch, time.perf_counter() - started)
            self._report()
            self._save()
        if self.runtime.is_main:
            remove_checkpoints(self.checkpoints, self._retained(finished=True))
            facts = asdict(state)
            del facts["skipped_in_a_row"]
            facts["steps"] = facts.pop("step")
            best = best_step(state.history) or state.step
            publish_result(job.folder, {**facts, "best_step": best, "job": self.fingerprint})
        # Asked to stop during the last step or what follows it: what comes after this job is not begun.
        if self.runtime.sum(torch.tensor(int(stop.received))):
            self._say("finished, then stopped as asked")
            raise SystemExit(STOPPED_STATUS)

    def _stop(self) -> NoReturn:
        """Ends the process between two steps, with nothing lost."""
        self._report()
        self._save()
        self.writer.wait()
        self._say(f"stopped after step {self.state.step}, its checkpoint is written")
        raise SystemExit(STOPPED_STATUS)

    def _say(self, what: str) -> None:
        if self.runtime.is_main:
            done = f"megasbp: {self.job.name}: {what}; the same command continues"
            print(done, file=sys.stderr, flush=True)

    @contextmanager
    def _batches(self) -> Iterator[Iterator[Batch]]:
        """This rank's rows of each remaining global batch."""
        size = self.job.training.global_batch
        samples = range(self.state.step * size, self.job.steps * size)
        loader = Loader(self.job.source, samples, size, self.runtime.data_rank, self.runtime.data_ranks)
        batches = iter(loader)
        assert isinstance(batches, Generator)
        # Closing stops the loader's threads also when the loop ends early.
        with closing(batches):
            yield batches

    def _step(self, batch: Batch, waited: float) -> None:
        """One optimiser step, and what is due after it.

        Args:
            waited: seconds until the batch was there.
        """
        job, state, training = self.job, self.state, self.job.training
        counts = torch.tensor([batch.input_tokens, batch.valid_tokens])
        inputs, valid = self.runtime.sum_over_data(counts).tolist()
        nats = accumulate_gradients(self.model, batch, training.micro_batch, valid, self.runtime.device)
        state.step += 1
        state.input_tokens += inputs
        state.valid_tokens += valid
        rate = learning_rate(training, state.step, job.steps)
        measured = optimizer_step(self.optimizer, rate, nats, valid, training.gradient_clip, self.runtime)
        row = {"step": state.step, "tokens": state.input_tokens, "valid_tokens": valid, "learning_rate": rate}
        row["data_seconds"] = round(waited, 6)
        self.recorder.add(row, inputs, measured)

        validates, saves = state.step in self.validation_steps, state.step in self.scheduled
        if validates or saves or len(self.recorder) >= training.log_every:
            self._report(validates)
        if saves or best_step(state.history) == state.step:
            self._save()

    def _report(self, validates: bool = False) -> None:
        """Counts skipped steps, validates, and writes the rows of the steps since the last report."""
        job, state = self.job, self.state
        rows = self.recorder.read()
        # Of several steps the last one may be finite again.
        longest, its_end = 0, 0
        for row in rows:
            state.skipped_steps += row["skipped"]
            state.skipped_in_a_row = state.skipped_in_a_row + 1 if row["skipped"] else 0
            if state.skipped_in_a_row > longest:
                longest, its_end = state.skipped_in_a_row, row["step"]
        finding = None
        if validates and job.validation is not None:
            loss = validation_loss(self.model, job.validation, job.training.micro_batch, self.runtime)
            if math.isfinite(loss):
                point = {"step": state.step, "tokens": state.input_tokens, "validation_loss": loss}
                state.history.append(point)
                rows[-1]["validation_loss"] = loss
            else:
                finding = f"the validation loss is not finite at step {state.step}"
        self.recorder.write(rows)
        self.recorder.start_clock()
        if longest >= MAXIMUM_SKIPS_IN_A_ROW:
            finding = f"loss or gradient was not finite in {longest} steps in a row, up to step {its_end}"
        if finding is not None:
            raise Diverged(job, finding, state)

    def _save(self) -> None:
        """Begins to write this step's checkpoint, unless it is there; those no longer needed go after it."""
        state = self.state
        if state.step == self.saved_step:
            return
        self.recorder.sync()
        facts = {
            **asdict(state),
            "best_step": best_step(state.history),
            "model": self.job.model.model_dump(mode="json"),
            "tokenizer": self.job.tokenizer_hash,
            "job": self.fingerprint,
        }
        folder = checkpoint_folder(self.checkpoints, state.step)
        retained = self._retained(finished=False)
        self.writer.save(folder, facts, lambda: remove_checkpoints(self.checkpoints, retained))
        self.saved_step = state.step
        self.recorder.start_clock()

    def _retained(self, finished: bool) -> set[int]:
        state, keep = self.state, self.job.training.keep_checkpoints
        return retained_steps(self.scheduled, state.step, keep, state.history, finished)

    def _newest(self) -> Path | None:
        """The checkpoint to continue from, on all ranks the same."""
        if self.runtime.is_main:
            remove_partials(Path(self.job.folder))
            remove_partials(self.checkpoints)
            remove_partials(Path(self.job.folder) / PROFILES)
        return newest_checkpoint(self.checkpoints, self.runtime)

    def _resume(self, checkpoint: Path) -> None:
        saved = read_state(checkpoint)
        if saved["job"] != self.fingerprint:
            raise InputError(
                f"{checkpoint}: a checkpoint of another job; give this job another folder, or remove that one"
            )
        load_tensors(checkpoint, self.tensors, self.runtime)
        self.state = RunState(**{name: saved[name] for name in asdict(self.state)})
        self.saved_step = self.state.step
        set_update_count(self.optimizer, self.state.step - self.state.skipped_steps)
