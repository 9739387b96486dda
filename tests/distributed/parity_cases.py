"""The layouts of the parity matrix on 4 ranks, one launch; what each computes is left for test_parity.py.

Usage: python parity_cases.py FOLDER
"""

import itertools
import json
import sys
from pathlib import Path

import torch
from breaking_source import train_up_to
from launch import fork_ranks
from mutations import MUTATIONS
from safetensors.torch import save_file
from steps import GLOBAL_BATCH, build_model, one_step, tensors_of_steps
from training_world import RaggedSource, model_config, training_config, training_job

from megasbp.errors import InputError
from megasbp.model.config import ModelConfig
from megasbp.parallel.config import ParallelConfig
from megasbp.parallel.recompute import MODES
from megasbp.parallel.runtime import Runtime
from megasbp.training.checkpoint import checkpoint_tensors, load_tensors, save_checkpoint
from megasbp.training.job import TrainingJob
from megasbp.training.optimizer import build_optimizer, set_update_count
from megasbp.training.trainer import train
from megasbp.training.validation import validation_loss

RANKS = 4
# (dp_replicate, dp_shard, cp, tp): every one of product 4
LAYOUTS = tuple(
    (replicate, shard, context, tensor)
    for replicate, shard, context, tensor in itertools.product((1, 2, 4), repeat=4)
    if replicate * shard * context * tensor == 4
)
# Of which checkpoints are written.
SAVED = ((1, 4, 1, 1), (2, 2, 1, 1), (1, 2, 1, 2), (1, 1, 2, 2), (1, 1, 1, 4))
MODELS = {
    "tied": {"tied": True},
    "untied, grouped queries": {"tied": False, "heads": 8},
    "tied, no norms of queries, µP": {"tied": True, "qk_norm": False, "mup_base_width": 8},
}
DTYPES = {"fp64": torch.float64, "fp32": torch.float32}
# Model and type of numbers, at every layout; and at those of several axes and of the widest.
EVERYWHERE = (("tied", "fp64"), ("untied, grouped queries", "fp32"))
AT_SOME = (("untied, grouped queries", "fp64"), ("tied, no norms of queries, µP", "fp64"))
SOME = ((1, 2, 1, 2), (2, 1, 2, 1), (1, 1, 2, 2), (1, 1, 1, 4))
CASES = [
    *((layout, *case) for layout in LAYOUTS for case in EVERYWHERE),
    *((layout, *case) for layout in SOME for case in AT_SOME),
]
MICRO_BATCH = 2


def wide_config(**changes: object) -> ModelConfig:
    """Of sizes that 4 ranks can share."""
    return model_config(**{"vocabulary_size": 64, "heads": 4, "kv_heads": 4, **changes})


def case_name(layout: tuple[int, ...], model: str, dtype: str) -> str:
    return f"{'x'.join(map(str, layout))} {model} {dtype}"


def checkpoint_path(folder: Path, layout: tuple[int, ...]) -> Path:
    return folder / f"checkpoint-{'x'.join(map(str, layout))}"


def losses_and_norms(
    runtime: Runtime, folder: Path, saved: tuple[int, ...] | None = None, own: tuple[int, ...] | None = None
) -> list[list[float]]:
    """Loss and gradient norm of two steps, with a checkpoint of `own` between; of the second from one."""
    model = build_model(runtime, wide_config(), torch.float32)
    optimizer = build_optimizer(model, training_config(epsilon=1e-4))
    tensors = checkpoint_tensors(model, optimizer)
    found = []
    for step in (0, 1):
        if step == 1 and saved is not None:
            load_tensors(checkpoint_path(folder, saved), tensors, runtime)
            set_update_count(optimizer, 1)
        if step == 0 and saved is not None:
            continue
        found.append(one_step(runtime, model, optimizer, step).tolist())
        if step == 0 and own is not None:
            save_checkpoint(checkpoint_path(folder, own), tensors, {}, runtime)
    return found


def job_of(folder: Path) -> TrainingJob:
    """Twelve steps with validations and checkpoints."""
    return training_job(
        folder,
        model={"vocabulary_size": 64, "heads": 4, "kv_heads": 4},
        training={"global_batch": GLOBAL_BATCH, "micro_batch": MICRO_BATCH},
        steps=12,
    )


def keep(runtime: Runtime, tensors: dict[str, torch.Tensor], path: Path) -> None:
    if runtime.is_main:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)


def refusal(runtime: Runtime, folder: Path) -> str:
    """What a job says whose heads the ranks cannot share."""
    changes = {"vocabulary_size": 64, "heads": 3, "kv_heads": 3}
    try:
        train(training_job(folder, model=changes), runtime)
    except InputError as error:
        assert not folder.exists()
        return str(error)
    return ""


def main(folder: Path) -> None:
    started = Runtime.start()
    facts: dict[str, object] = {}
    runtimes = {
        layout: started.laid_out(ParallelConfig(replicate=layout[0], context=layout[2], tensor=layout[3]))
        for layout in LAYOUTS
    }
    for layout, name, dtype in CASES:
        model = build_model(runtimes[layout], wide_config(**MODELS[name]), DTYPES[dtype])
        tensors = tensors_of_steps(runtimes[layout], model, MICRO_BATCH)
        keep(started, tensors, folder / f"{case_name(layout, name, dtype)}.safetensors")
    for mode in MODES:
        model = build_model(runtimes[1, 2, 1, 2], wide_config(), torch.float64, mode)
        tensors = tensors_of_steps(runtimes[1, 2, 1, 2], model, MICRO_BATCH)
        keep(started, tensors, folder / f"{mode}.safetensors")
    for mutation, layout in MUTATIONS.items():
        with mutation():
            model = build_model(runtimes[layout], wide_config(), torch.float64)
            tensors = tensors_of_steps(runtimes[layout], model, MICRO_BATCH)
        keep(started, tensors, folder / f"{mutation.__name__}.safetensors")
    for layout in SAVED:
        facts[f"{layout} uninterrupted"] = losses_and_norms(runtimes[layout], folder, own=layout)
    for saved, layout in itertools.product(SAVED, SAVED):
        facts[f"{saved} to {layout}"] = losses_and_norms(runtimes[layout], folder, saved)
    for layout, runtime in runtimes.items():
        model = build_model(runtime, wide_config(), torch.float32)
        facts[f"{layout} validation"] = validation_loss(model, RaggedSource(2, 7), 2, runtime)
    train_up_to(8, job_of(folder / "job"), runtimes[1, 2, 1, 2])
    train(job_of(folder / "job"), runtimes[1, 1, 2, 2])
    facts["refusal"] = refusal(runtimes[1, 2, 1, 2], folder / "refused")
    if started.is_main:
        (folder / "facts.json").write_text(json.dumps(facts))
    started.close()


if __name__ == "__main__":
    fork_ranks(main, RANKS, Path(sys.argv[1]))
