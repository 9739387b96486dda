"""The layouts of the parity matrix on 4 ranks, one launch; what each computes is left for test_parity.py.

Usage: python parity_cases.py FOLDER
"""

import itertools
import json
import sys
from pathlib import Path

import symmetric_memory  # noqa: F401
from breaking_source import train_up_to
from launch import fork_ranks
from layouts import SCHEDULES, SOURCES, Case, config_of, layout_name, layouts_of, source_of
from mutations import MUTATIONS
from steps import GLOBAL_BATCH, Layouts, keep, one_step, passes_of_a_step, run_case
from training_world import MODES, RaggedSource, initial_model, training_config, training_job

from megasbp.errors import InputError
from megasbp.parallel.config import ParallelConfig
from megasbp.parallel.recompute import Mode
from megasbp.parallel.runtime import Runtime
from megasbp.parallel.shards import local_tensor
from megasbp.training.checkpoint import checkpoint_tensors, load_tensors, save_checkpoint
from megasbp.training.job import TrainingJob
from megasbp.training.optimizer import build_optimizer, follow_table, set_update_count
from megasbp.training.trainer import train
from megasbp.training.validation import validation_loss

RANKS = 4
LAYOUTS = layouts_of(RANKS)
SHARD, TENSOR = ParallelConfig(), ParallelConfig(tensor=2)
# Of which checkpoints are written.
SAVED = (
    SHARD,
    ParallelConfig(replicate=2),
    TENSOR,
    ParallelConfig(context=2, tensor=2),
    ParallelConfig(tensor=4),
    ParallelConfig(pipeline=2, tensor=2, schedule="zbv_zero_bubble"),
)
FLAT = [layout for layout in LAYOUTS if layout.pipeline == 1]
# Of several axes, and the widest.
SOME = (TENSOR, ParallelConfig(replicate=2, context=2), SAVED[3], SAVED[4])
PIPELINED = ParallelConfig(pipeline=2, tensor=2)
ASYNCHRONOUS = ParallelConfig(tensor=2, asynchronous_tensor=True)


def micro_batch_of(layout: ParallelConfig) -> int:
    """Rows, so that a step has four micro-batches in a pipeline, and two elsewhere."""
    rows = GLOBAL_BATCH * layout.pipeline * layout.context * layout.tensor // RANKS
    return rows // (4 if layout.pipeline > 1 else 2)


def case_of(layout: ParallelConfig, *what: str, checkpointing: Mode = "none") -> Case:
    """A case of so large micro-batches."""
    return Case(layout, *what, micro_batch=micro_batch_of(layout), checkpointing=checkpointing)


CASES = [
    *(case_of(layout, "tied", "fp64") for layout in FLAT),
    *(case_of(layout, "untied, grouped queries", "fp32") for layout in FLAT),
    *(case_of(layout, "untied, grouped queries", "fp64") for layout in SOME),
    *(case_of(layout, "tied, no norms of queries, µP", "fp64") for layout in SOME),
    *(case_of(layout, "tied", "fp64", "pairs") for layout in SOME),
    *(case_of(layout, "tied, heads of 2", "fp64") for layout in (SHARD, ParallelConfig(context=4))),
    *(case_of(layout, "tied, 5 layers", "fp64") for layout in LAYOUTS if layout.pipeline > 1),
    *(
        case_of(PIPELINED.model_copy(update={"schedule": schedule}), model, dtype, source)
        for schedule in SCHEDULES
        for model, dtype, source in (
            ("tied, 5 layers", "fp64", "pairs"),
            ("untied, 5 layers", "fp32", "ragged"),
        )
    ),
    case_of(ASYNCHRONOUS, "tied", "fp64"),
    case_of(ASYNCHRONOUS.model_copy(update={"tensor": 4}), "untied, grouped queries", "fp32"),
    case_of(ASYNCHRONOUS.model_copy(update={"context": 2}), "tied", "fp64", "pairs"),
    case_of(ASYNCHRONOUS.model_copy(update={"pipeline": 2}), "tied, 5 layers", "fp64"),
]
# Each beside the same case of CASES.
RECOMPUTED = [
    case
    for mode in MODES
    if mode != "none"
    for case in (
        case_of(TENSOR, checkpointing=mode),
        case_of(ASYNCHRONOUS, checkpointing=mode),
        case_of(PIPELINED, "tied, 5 layers", checkpointing=mode),
    )
]
IN_BF16 = [
    Case(ParallelConfig(pipeline=2, schedule=schedule), "tied, 5 layers", "bf16") for schedule in SCHEDULES
]
# One micro-batch a step: gradients are not added up in fp32 before the ranks' are.
NEAR_BF16 = [
    Case(TENSOR, "tied", "bf16", micro_batch=8),
    Case(ParallelConfig(context=2), "tied", "bf16", micro_batch=8),
    Case(ParallelConfig(replicate=2), "tied", "bf16", micro_batch=4),
    Case(ParallelConfig(context=2, tensor=2), "tied", "bf16", micro_batch=16),
]
MICRO_BATCH = 2


def checkpoint_path(folder: Path, layout: ParallelConfig) -> Path:
    return folder / f"checkpoint {layout_name(layout)}"


def measured_steps(
    runtime: Runtime,
    folder: Path,
    saved: ParallelConfig | None = None,
    own: ParallelConfig | None = None,
    spoil: bool = False,
) -> list[list[float]]:
    """Of two steps, with a checkpoint of `own` between; of the second one from a checkpoint `saved`.

    Loss and gradient norm of each, which the moments have no part in, and the held-out loss after its update.

    Args:
        spoil: takes what was loaded of the moments away.
    """
    model = initial_model(config_of("tied, heads of 2, 5 layers"), runtime)
    optimizer = build_optimizer(model, training_config(epsilon=1e-4))
    tensors = checkpoint_tensors(model, optimizer)
    found = []
    for step in (0, 1):
        if step == 1 and saved is not None:
            load_tensors(checkpoint_path(folder, saved), tensors, runtime)
            set_update_count(optimizer, 1)
            follow_table(model, optimizer)
            for name, tensor in tensors.items():
                if spoil and not name.startswith("model."):
                    local_tensor(tensor).zero_()
        if step == 0 and saved is not None:
            continue
        measured = one_step(runtime, model, optimizer, step, micro=micro_batch_of(runtime.parallel)).tolist()
        found.append([*measured, validation_loss(model, RaggedSource(3, 4), 2, runtime)])
        if step == 0 and own is not None:
            save_checkpoint(checkpoint_path(folder, own), tensors, {}, runtime)
    return found


def job_of(folder: Path) -> TrainingJob:
    """Twelve steps with validations and checkpoints."""
    return training_job(
        folder,
        model={"vocabulary_size": 64, "heads": 4, "kv_heads": 4, "layers": 5},
        training={"global_batch": GLOBAL_BATCH, "micro_batch": MICRO_BATCH},
        steps=12,
    )


def refusal(runtime: Runtime, folder: Path, heads: int = 4, **training: object) -> str:
    """What a job says that the ranks cannot share so; it writes nothing."""
    changes = {"vocabulary_size": 64, "heads": heads, "kv_heads": heads, "layers": 5}
    try:
        train(training_job(folder, model=changes, training=training), runtime)
    except InputError as error:
        assert not folder.exists()
        return str(error)
    return ""


def main(folder: Path) -> None:
    started = Runtime.start()
    facts: dict[str, object] = {}
    laid_out = Layouts(started)
    own = folder / f"rank {started.rank}"
    own.mkdir()
    sources = {name: source_of(name, own) for name in SOURCES}
    for case in (*CASES, *RECOMPUTED, *IN_BF16, *NEAR_BF16):
        keep(laid_out(case.parallel), run_case(case, laid_out(case.parallel), sources), folder / str(case))
    for mutation, case in MUTATIONS.items():
        with mutation():
            keep(
                laid_out(case.parallel),
                run_case(case, laid_out(case.parallel), sources),
                folder / mutation.__name__,
            )
    for schedule in SCHEDULES:
        layout = PIPELINED.model_copy(update={"schedule": schedule})
        facts[f"{schedule} passes"] = passes_of_a_step(laid_out(layout))
    for layout in SAVED:
        facts[f"{layout_name(layout)} uninterrupted"] = measured_steps(laid_out(layout), folder, own=layout)
    for saved, layout in itertools.product(SAVED, SAVED):
        found = measured_steps(laid_out(layout), folder, saved)
        facts[f"{layout_name(saved)} to {layout_name(layout)}"] = found
    facts["moments lost"] = measured_steps(laid_out(TENSOR), folder, SHARD, spoil=True)
    for layout in LAYOUTS:
        model = initial_model(config_of("tied, 5 layers"), laid_out(layout))
        loss = validation_loss(model, RaggedSource(2, 7), 2, laid_out(layout))
        facts[f"{layout_name(layout)} validation"] = loss
    # Each for long enough that a validation lies between two of its steps.
    for steps, schedule in ((4, "zbv_zero_bubble"), (7, "dualpipe_v"), (10, "interleaved_1f1b")):
        layout = PIPELINED.model_copy(update={"schedule": schedule})
        train_up_to(steps, job_of(folder / "job"), laid_out(layout))
    train(job_of(folder / "job"), laid_out(SAVED[3]))
    facts["refusal"] = refusal(laid_out(TENSOR), folder / "refused", heads=3)
    facts["too few"] = refusal(laid_out(PIPELINED), folder / "refused", micro_batch=8)
    deferring = laid_out(PIPELINED.model_copy(update={"schedule": "zbv_zero_bubble"}))
    facts["recomputed and deferred"] = refusal(deferring, folder / "refused", activation_checkpointing="full")
    if started.is_main:
        (folder / "facts.json").write_text(json.dumps(facts))
    started.close()


if __name__ == "__main__":
    fork_ranks(main, RANKS, Path(sys.argv[1]))
