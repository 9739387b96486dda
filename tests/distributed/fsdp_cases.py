"""What the ranks of one launch do; each case leaves a file that test_fsdp.py reads.

Usage: python fsdp_cases.py FOLDER_OF_4_RANKS FOLDER_OF_2_RANKS

The 2 ranks also finish the run that the 4 ranks left unfinished.
"""

import json
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import torch
from breaking_source import BreakingSource, train_up_to
from launch import fork_ranks
from safetensors.torch import save_file
from steps import GLOBAL_BATCH, tensors_of_steps, whole
from torch.distributed.tensor import Replicate, Shard, distribute_tensor
from torch.utils._python_dispatch import TorchDispatchMode
from training_world import RaggedSource, initial_model, model_config, training_config, training_job

from megasbp.errors import InputError
from megasbp.model.transformer import Transformer
from megasbp.parallel.runtime import Runtime
from megasbp.parallel.shards import square_sum
from megasbp.training.checkpoint_files import checkpoint_steps
from megasbp.training.gradients import accumulate_gradients
from megasbp.training.optimizer import build_optimizer, optimizer_step
from megasbp.training.trainer import train
from megasbp.training.validation import validation_loss

# tied, micro-batch, precision
LAYOUTS = {
    "tied-micro4-fp32": (True, 4, "fp32"),
    "tied-micro1-fp32": (True, 1, "fp32"),
    "untied-micro2-fp32": (False, 2, "fp32"),
    "tied-micro1-bf16": (True, 1, "bf16"),
}
JOB_STEPS = 12


class CountingCollectives(TorchDispatchMode):
    """Counts the calls of each collective while it is open."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: dict[str, int] = {}

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        name = str(function)
        if name.startswith("c10d."):
            self.counts[name] = self.counts.get(name, 0) + 1
        return function(*arguments, **(options or {}))


def build(runtime: Runtime, tied: bool, precision: str) -> Transformer:
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    return initial_model(model_config(tied=tied), runtime, dtype)


def step_tensors(runtime: Runtime, tied: bool, micro: int, precision: str) -> dict[str, torch.Tensor]:
    return tensors_of_steps(runtime, build(runtime, tied, precision), micro)


def communication(runtime: Runtime, micro: int) -> dict[str, int]:
    """Collectives of one step's forward and backward passes."""
    model = build(runtime, True, "fp32")
    rows = GLOBAL_BATCH // runtime.data_ranks
    batch = RaggedSource(1).batch(np.arange(rows))
    accumulate_gradients(model, batch, micro, 100, runtime.device)  # the first step also sets FSDP2 up
    with CountingCollectives() as mode:
        accumulate_gradients(model, batch, micro, 100, runtime.device)
    return mode.counts


def skipped_by_one_rank(runtime: Runtime) -> dict[str, bool]:
    """Whether a loss that is infinite on the last rank only leaves the parameters of all as they were."""
    model = build(runtime, True, "fp32")
    optimizer = build_optimizer(model, training_config())
    batch = RaggedSource(1).batch(np.arange(2))
    outcome = {}
    for name in ("broken", "sound"):
        nats = accumulate_gradients(model, batch, 2, 100, runtime.device)
        if name == "broken" and runtime.rank == runtime.world_size - 1:
            nats.fill_(torch.inf)
        before = [whole(parameter) for parameter in model.parameters()]
        optimizer_step(optimizer, 0.01, nats, 100, 1.0, runtime)
        after = [whole(parameter) for parameter in model.parameters()]
        outcome[name] = all(torch.equal(new, old) for new, old in zip(after, before, strict=True))
    return outcome


def stopped_by_one_rank(runtime: Runtime, folder: Path) -> dict[str, object]:
    """SIGTERM reaches the last rank only; all of them stop together, and continue."""
    source = RaggedSource(1)
    if runtime.rank == runtime.world_size - 1:
        source = BreakingSource(1, 6, GLOBAL_BATCH, signal.SIGTERM)
    try:
        train(job_of(folder, source=source), runtime)
    except SystemExit as ended:
        statuses = int(runtime.sum(torch.tensor(ended.code)))
        step = max(checkpoint_steps(folder / "checkpoints"))
        return {"statuses": statuses, "step": step, "then": train(job_of(folder), runtime).steps}
    return {}


def squares(runtime: Runtime) -> float:
    """The sum of squares of a sharded and a replicated tensor, as the ranks see it together."""
    tensors = [torch.arange(7.0), torch.arange(5.0)]
    placed = [
        distribute_tensor(tensor, runtime.data, [placement])
        for tensor, placement in zip(tensors, (Shard(0), Replicate()), strict=True)
    ]
    return float(runtime.sum(square_sum(placed)))


def refusal(runtime: Runtime, folder: Path) -> dict[str, object]:
    job = training_job(folder, training={"global_batch": 12, "micro_batch": 4})
    try:
        train(job, runtime)
    except InputError as error:
        return {"message": str(error), "written": folder.exists()}
    return {"message": "", "written": True}


def job_of(folder: Path, **changes: object):
    training = {"global_batch": GLOBAL_BATCH, "micro_batch": 2}
    return training_job(folder, training=training, steps=JOB_STEPS, **changes)


def read_by_all(runtime: Runtime, read: list[int]) -> list[int]:
    """The samples that all ranks have read, rank by rank."""
    lists: list[list[int]] = [[]] * runtime.world_size
    torch.distributed.all_gather_object(lists, read)
    return [sample for samples in lists for sample in samples]


def read_by_job(runtime: Runtime, folder: Path) -> list[int]:
    """Trains to the end; the samples that all ranks have read for it."""
    source = RaggedSource(1)
    train(job_of(folder, source=source), runtime)
    return read_by_all(runtime, source.read)


def main(folder: Path) -> None:
    runtime = Runtime.start()
    facts: dict[str, object] = {"text": runtime.broadcast("größer" if runtime.is_main else "other")}
    for name, layout in LAYOUTS.items():
        tensors = step_tensors(runtime, *layout)
        if runtime.is_main:
            save_file(
                {key: value.contiguous() for key, value in tensors.items()}, folder / f"{name}.safetensors"
            )
    rows = GLOBAL_BATCH // runtime.data_ranks
    facts["communication"] = {count: communication(runtime, rows // count) for count in (2, 4)}
    facts["one micro-batch"] = communication(runtime, rows)
    facts["skipped"] = skipped_by_one_rank(runtime)
    facts["squares"] = squares(runtime)
    facts["stopped"] = stopped_by_one_rank(runtime, folder / "stopped")
    facts["refusal"] = refusal(runtime, folder / "refused")
    facts["validation"] = validation_loss(build(runtime, True, "fp32"), RaggedSource(2, 7), 2, runtime)

    read = {}
    earlier = folder / "interrupted-before"  # by another launch, at another number of ranks
    if earlier.exists():
        read["interrupted-before"] = read_by_job(runtime, earlier)
    # The newest checkpoint of the run that fails is that of step 8.
    read["until interrupted"] = read_by_all(runtime, train_up_to(8, job_of(folder / "job"), runtime))
    runtime.barrier()
    if runtime.is_main:
        shutil.copytree(folder / "job", folder / "interrupted")
    runtime.barrier()
    read["job"] = read_by_job(runtime, folder / "job")
    facts["read"] = read
    facts["interrupted at"] = max(checkpoint_steps(folder / "interrupted" / "checkpoints"))
    if runtime.is_main:
        (folder / "facts.json").write_text(json.dumps(facts))
    runtime.close()


if __name__ == "__main__":
    four, two = Path(sys.argv[1]), Path(sys.argv[2])
    fork_ranks(main, 4, four)
    shutil.copytree(four / "interrupted", two / "interrupted-before")
    fork_ranks(main, 2, two)
