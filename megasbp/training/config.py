"""The recipe's section [training]."""

from typing import Any, Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from megasbp.kernels.attention_backend import Backend
from megasbp.parallel.config import ParallelConfig, schedule_problem
from megasbp.parallel.fp8 import Scaling
from megasbp.parallel.recompute import Mode
from megasbp.parallel.runtime import computes_bfloat16

# They watch a run and change nothing in it.
OBSERVATION = frozenset({"peak_tflops", "profile_steps"})
# Settings of how a job is carried out; changing them between two starts continues the same job.
EXECUTION = frozenset(
    {
        "micro_batch",
        "activation_checkpointing",
        "attention",
        "adamw",
        "compile",
        "keep_checkpoints",
        "log_every",
    }
)


class TrainingConfig(BaseModel):
    """How one model is trained; what it is trained on is its source.

    Attributes:
        sequence_length: tokens of a sample.
        global_batch: samples of an optimiser step, over all ranks.
        micro_batch: samples of a forward pass on one rank. Changes rounding and memory, nothing else.
        learning_rate: peak.
        minimum_learning_rate_ratio: the last step has this share of the peak, unless the rate is constant.
        warmup_share: share of the steps over which the rate grows linearly to the peak.
        schedule: after warm-up, "cosine" falls to the minimum; "wsd" stays at the peak and falls in the end;
            "constant" stays at the peak.
        decay_share: of "wsd": share of the steps, the last ones, in which it falls.
        weight_decay: decoupled (times the learning rate), of the matrices inside the blocks and an untied
            output head; norms and embeddings have none.
        beta1, beta2, epsilon: of AdamW.
        z_loss: weight of the squared logarithm of the softmax's sum (PaLM: 1e-4), added to the loss of the
            training steps, and to what is logged of them; held-out losses are without it.
        gradient_clip: largest global gradient norm.
        activation_checkpointing: "full" keeps only the inputs of the blocks for the backward pass and
            computes the rest again; "selective" keeps the matrix products too; "none" keeps all. Changes
            memory and time, nothing else.
        adamw: "torch" for its fused kernels, "apex" for NVIDIA's, on GPUs where that is installed.
        compile: compiles the blocks with torch.compile; the first steps take minutes, the others less time.
            Sums are made in another order.
        fp8: makes the matrix products of the blocks in 8-bit floating point: "tensorwise" is faster,
            "rowwise" more exact. On GPUs from compute capability 8.9 on, with torchao and precision "bf16".
        attention: what computes it; "auto" takes the fastest that is installed for this device, which
            `megasbp doctor` names. Each makes its sums in another order.
        precision: type of activations and matrix products, "bf16" or "fp32"; parameters, gradient sums and
            optimiser are fp32. "auto" becomes "bf16" where this process's device multiplies it in hardware,
            else "fp32"; runs that move between machines name one.
        validations: validations of a run, evenly spaced, the last at its end.
        checkpoints: scheduled checkpoints of a run, evenly spaced, the last at its end. A validation that
            is the best so far writes one too.
        keep_checkpoints: newest ones that are kept, beside the best.
        log_every: steps after which the losses are read from the device and written; every step has a row.
        peak_tflops: dense TFLOP/s of a rank's device, of which the logs give the share that is used; without
            it those of NVIDIA's data sheet where the device's name is known.
        profile_steps: first and last step of a window under torch's profiler; its traces are
            profile/rank-R.json.gz in the job's folder.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sequence_length: int = Field(512, ge=2)
    global_batch: int = Field(16, ge=1)
    micro_batch: int = Field(16, ge=1)
    learning_rate: float = Field(3e-3, gt=0, allow_inf_nan=False)
    minimum_learning_rate_ratio: float = Field(0.1, ge=0, le=1)
    warmup_share: float = Field(0.05, ge=0, lt=1)
    schedule: Literal["cosine", "wsd", "constant"] = "cosine"
    decay_share: float = Field(0.2, gt=0, le=1)
    weight_decay: float = Field(0.1, ge=0, allow_inf_nan=False)
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.95, ge=0, lt=1)
    epsilon: float = Field(1e-8, gt=0, allow_inf_nan=False)
    z_loss: float = Field(0.0, ge=0, allow_inf_nan=False)
    gradient_clip: float = Field(1.0, gt=0, allow_inf_nan=False)
    activation_checkpointing: Mode = "none"
    adamw: Literal["torch", "apex"] = "torch"
    compile: bool = False
    fp8: Scaling | None = None
    attention: Backend = "auto"
    precision: Literal["bf16", "fp32"] = "bf16"
    validations: int = Field(10, ge=1)
    checkpoints: int = Field(4, ge=1)
    keep_checkpoints: int = Field(2, ge=1)
    log_every: int = Field(1, ge=1)
    peak_tflops: float | None = Field(None, gt=0, allow_inf_nan=False)
    profile_steps: tuple[int, int] | None = None

    @field_validator("precision", mode="before")
    @classmethod
    def _native_precision(cls, value: object) -> object:
        if value != "auto":
            return value
        native = computes_bfloat16("cuda" if torch.cuda.is_available() else "cpu")
        return "bf16" if native else "fp32"

    @field_validator("profile_steps")
    @classmethod
    def _rising(cls, value: tuple[int, int] | None) -> tuple[int, int] | None:
        if value is not None and not 1 <= value[0] <= value[1]:
            first = max(1, min(value))
            raise ValueError(
                f"first and last step, counted from 1; set it to [{first}, {max(first, *value)}]"
            )
        return value

    def content(self) -> dict[str, Any]:
        """The section as JSON-serialisable values, without what only watches a run."""
        return self.model_dump(mode="json", exclude=set(OBSERVATION))

    def deciding(self) -> dict[str, Any]:
        """What the trained model depends on, but for rounding, JSON-serialisable."""
        return self.model_dump(mode="json", exclude=set(OBSERVATION | EXECUTION))

    @property
    def compute_dtype(self) -> torch.dtype:
        """Type of activations and matrix products."""
        return torch.bfloat16 if self.precision == "bf16" else torch.float32

    @model_validator(mode="after")
    def _fp8_beside_bf16(self) -> Self:
        if self.fp8 is not None and self.precision != "bf16":
            raise ValueError(f"fp8 is {self.fp8!r}, but precision {self.precision!r}; set it to 'bf16'")
        return self

    @model_validator(mode="after")
    def _batches_divide(self) -> Self:
        problem = batch_problem(self.global_batch, self.micro_batch, ranks=1)
        if problem:
            raise ValueError(problem)
        return self


def batch_problem(global_batch: int, micro_batch: int, ranks: int) -> str | None:
    """Why the global batch is no whole number of micro-batches on each rank, and the nearest that is."""
    unit = micro_batch * ranks
    if global_batch % unit == 0:
        return None
    nearest = max(1, round(global_batch / unit)) * unit
    over = f" x {ranks} ranks" if ranks > 1 else ""
    return (
        f"global_batch is {global_batch}, not a multiple of micro_batch {micro_batch}{over}; "
        f"set global_batch to {nearest}, or a smaller micro_batch"
    )


def products_problem(training: TrainingConfig, parallel: ParallelConfig) -> str | None:
    """Why the matrix products cannot be made so in this layout, and the mend; None where they can."""
    if training.fp8 is not None and parallel.asynchronous_tensor:
        return "training.fp8 and parallel.asynchronous_tensor do not go together; leave one of them out"
    return None


def pipeline_problem(
    training: TrainingConfig, parallel: ParallelConfig, data_ranks: int, section: str = "training"
) -> str | None:
    """Why a pipeline cannot run so many micro-batches so, with the mend; None where it can, or none is.

    Args:
        section: of the recipe, which has the batch sizes.
    """
    # torch goes through a stage's graph twice where gradients are deferred: what was computed again is gone
    # the second time, and a compiled program computes all of them both times.
    ruled_out = {"activation_checkpointing": "none", "compile": False} if parallel.defers_gradients else {}
    for name, allowed in ruled_out.items():
        if getattr(training, name) != allowed:
            return (
                f"training.{name} is {getattr(training, name)!r}, which parallel.schedule "
                f"{parallel.schedule!r} rules out, because it defers the gradients of the weights; set it to "
                f"{allowed!r}, or parallel.schedule to 'interleaved_1f1b'"
            )
    return schedule_problem(parallel, training.global_batch, training.micro_batch, data_ranks, section)
