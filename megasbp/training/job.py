"""A training job: what it is, whether it is possible, and which folder is its own."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from megasbp.data.sources import SampleSource
from megasbp.errors import InputError
from megasbp.kernels.attention_backend import Choice, choose
from megasbp.model.config import ModelConfig
from megasbp.model.flops import parameter_count
from megasbp.parallel.asynchronous import asynchronous_problem
from megasbp.parallel.config import layout_problem
from megasbp.parallel.fp8 import fp8_problem
from megasbp.parallel.runtime import Runtime
from megasbp.storage import hash_object, publish_json, read_json, read_manifest, require_free_space
from megasbp.training.apex_adamw import apex_problem
from megasbp.training.checkpoint_files import read_state, require_whole
from megasbp.training.config import TrainingConfig, batch_problem, pipeline_problem, products_problem

JOB_NAME = "job.json"

# Weights, two moments: fp32.
CHECKPOINT_BYTES_PER_PARAMETER = 12


@dataclass
class TrainingJob:
    """One training run. Baseline, synthesizer and every arm differ in these fields only.

    Attributes:
        name: shown in the progress line.
        source: training samples; optimiser step s reads samples [(s-1) * global_batch, s * global_batch).
        steps: optimiser steps.
        seed: of the initial weights, when there is no initial checkpoint.
        folder: where everything is written; a job resumes from what it finds there.
        validation: one epoch of it is the held-out loss; None for no validation.
        initial_checkpoint: its weights are the initial ones; its optimiser state is not taken over.
        early_stop_patience: ends the run after this many validations in a row without improvement.
        tokenizer_hash: recorded in the checkpoints.
    """

    name: str
    model: ModelConfig
    training: TrainingConfig
    source: SampleSource
    steps: int
    seed: int
    folder: Path
    validation: SampleSource | None
    initial_checkpoint: Path | None
    early_stop_patience: int | None = None
    tokenizer_hash: str = ""


def check_job(job: TrainingJob, runtime: Runtime) -> None:
    """Refuses an impossible job; all ranks call it. Writes nothing.

    Raises:
        InputError: names the setting and the nearest legal value.
    """
    training, model = job.training, job.model
    if job.steps < 1:
        raise InputError(f"{job.name}: steps is {job.steps}, must be at least 1; raise the token budget")
    problem = _layout_problem(job, runtime)
    if problem:
        raise InputError(problem)
    sources = {"training": job.source} | ({"validation": job.validation} if job.validation else {})
    for role, source in sources.items():
        if source.sequence_length > model.maximum_positions:
            raise InputError(
                f"model.maximum_positions is {model.maximum_positions}, below the {role} source's sequences "
                f"of {source.sequence_length}; set it to at least {source.sequence_length}"
            )
        if source.samples_per_epoch < 1:
            raise InputError(f"{job.name}: the {role} source is empty; give it more documents")
    if job.source.sequence_length != training.sequence_length:
        raise InputError(
            f"training.sequence_length is {training.sequence_length}, the source's sequences have "
            f"{job.source.sequence_length}; set it to {job.source.sequence_length}"
        )
    if job.early_stop_patience is not None:
        if job.early_stop_patience < 1:
            raise InputError(f"early_stop_patience is {job.early_stop_patience}, must be at least 1")
        if job.validation is None:
            raise InputError(f"{job.name}: early_stop_patience needs a validation source")
    if job.initial_checkpoint is not None:
        _check_initial(job.initial_checkpoint, model, runtime)
    size = parameter_count(model) * CHECKPOINT_BYTES_PER_PARAMETER
    # While one is written, the kept ones, the best as of each, and the new one.
    require_free_space(job.folder, size * (2 * training.keep_checkpoints + 1), beside_what_is_there=True)


def _layout_problem(job: TrainingJob, runtime: Runtime) -> str | None:
    """Why the ranks cannot share the job, with the nearest legal value; None where they can."""
    training, parallel = job.training, runtime.parallel
    problem = batch_problem(training.global_batch, training.micro_batch, runtime.data_ranks)
    if problem:
        return f"training.{problem}"
    problem = layout_problem(parallel, job.model, job.source.sequence_length, runtime.world_size)
    problem = problem or products_problem(training, parallel)
    if problem is None and parallel.asynchronous_tensor:
        problem = asynchronous_problem(runtime.tensor_ranks, runtime.device)
    if problem is None and training.fp8 is not None:
        problem = fp8_problem(job.model, runtime.tensor_ranks, runtime.device)
    if problem is None:
        problem = _attention_problem(job, runtime)
    if problem is None and training.adamw == "apex":
        problem = apex_problem(runtime.device)
    if problem or runtime.world_size == 1:
        return problem
    return pipeline_problem(training, parallel, runtime.data_ranks)


def _attention_problem(job: TrainingJob, runtime: Runtime) -> str | None:
    """Why `training.attention` cannot be, with what can; None where it can."""
    try:
        _attention_choice(job, runtime, segmented=True)
    except ValueError as error:
        return f"training.{error}"
    return None


def _attention_choice(job: TrainingJob, runtime: Runtime, segmented: bool) -> Choice:
    q = torch.empty(0, 1, 1, job.model.head_dim, dtype=job.training.compute_dtype, device=runtime.device)
    placed = runtime.parallel.context > 1
    return choose(job.training.attention, q, q, q, segmented=segmented, placed=placed)


def attention_text(job: TrainingJob, runtime: Runtime) -> str:
    """What computes attention, and why, as users read it; of a job that is checked."""
    training, on_cpu = job.training, runtime.device.type == "cpu"
    if training.attention == "auto" and training.compile and on_cpu:
        return "torch (the PyTorch reference, which torch.compile fuses)"
    chosen = _attention_choice(job, runtime, segmented=True)
    text = f"{chosen.backend} ({chosen.reason})"
    if on_cpu or runtime.parallel.context > 1 or runtime.parallel.pipeline > 1:
        return text
    # Rows that are one segment come without segments.
    of_whole_rows = _attention_choice(job, runtime, segmented=False)
    if of_whole_rows != chosen:
        text += f", of rows that are one segment {of_whole_rows.backend} ({of_whole_rows.reason})"
    return text


def job_identity(job: TrainingJob) -> dict[str, Any]:
    """Everything that a job's result depends on, by the names that users know; of a job that is checked."""
    initial = job.initial_checkpoint and read_manifest(job.initial_checkpoint, check="none")
    identity = {f"model.{key}": value for key, value in job.model.model_dump(mode="json").items()}
    identity |= {f"training.{key}": value for key, value in job.training.deciding().items()}
    return identity | {
        "steps": job.steps,
        "seed": job.seed,
        "source": job.source.fingerprint,
        "validation source": job.validation.fingerprint if job.validation else None,
        "initial checkpoint": initial.digest if initial else None,
        "early stop patience": job.early_stop_patience,
        "tokenizer": job.tokenizer_hash,
    }


def claim_folder(job: TrainingJob, runtime: Runtime) -> str:
    """Makes the folder the job's own and returns the job's fingerprint; all ranks call it.

    Raises:
        InputError: the folder holds another job.
    """
    identity = job_identity(job)
    path = Path(job.folder) / JOB_NAME
    if path.exists():
        held = read_json(path)
        for name in sorted({*identity, *held}):
            here, there = identity.get(name), held.get(name)
            if here != there:
                raise InputError(
                    f"{job.folder}: holds another job, whose {name} is {there!r}, not {here!r}; "
                    "give this job another folder, or remove that one"
                )
    # Every rank has looked before the first one writes.
    runtime.barrier()
    if runtime.is_main and not path.exists():
        publish_json(path, identity)
    return hash_object(identity)


def _check_initial(checkpoint: Path, model: ModelConfig, runtime: Runtime) -> None:
    require_whole(checkpoint, runtime)
    wanted = model.model_dump(mode="json")
    found = ModelConfig(**read_state(checkpoint)["model"]).model_dump(mode="json")
    for key, value in wanted.items():
        # Positions are rotary: a longer context has no weights of its own.
        if key != "maximum_positions" and found[key] != value:
            raise InputError(
                f"{checkpoint}: its model.{key} is {found[key]!r}, the job's is {value!r}; "
                f"set model.{key} to {found[key]!r}, or name another checkpoint"
            )
