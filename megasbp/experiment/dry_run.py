"""`megasbp train RECIPE --dry-run`: what each rank would hold, compute and send, by arithmetic alone."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from megasbp.experiment.recipe import Recipe
from megasbp.model.flops import flops_per_token, parameter_count
from megasbp.parallel.config import layout_problem
from megasbp.parallel.estimate.communication import Collective, collectives
from megasbp.parallel.estimate.memory import GIB, peak_memory
from megasbp.parallel.estimate.parameters import rank_parameters
from megasbp.parallel.estimate.pipeline import bubble_share
from megasbp.parallel.estimate.sizes import Sizes
from megasbp.training.config import batch_problem, pipeline_problem

# Of a device's memory, what tensors may fill: the rest is the allocator's waste, the buffers of the
# communication library and the device's context.
_USABLE = 0.9


def dry_run(recipe: Recipe, gpus: Sequence[int], memory_gib: float) -> dict[str, Any]:
    """A report of training an arm for each number of GPUs, in the order given.

    The layout is that of the recipe's training stages: `cluster.training.parallel` where that is set.

    Args:
        memory_gib: of each GPU.

    Returns:
        JSON-serialisable; a number of GPUs that the recipe cannot take has "problem" alone. Of a pipeline's
        ranks it is the one whose memory is fullest; operations are the mean.
    """
    model, length = recipe.model, recipe.training.sequence_length
    return {
        "name": recipe.name,
        "parameters": parameter_count(model),
        "batch_tokens": recipe.training.global_batch * length,
        "flops_per_token": {
            "causal": flops_per_token(model, length, causal=True),
            "full": flops_per_token(model, length, causal=False),
        },
        "layout_setting": "cluster.training.parallel" if _has_own_layout(recipe) else "parallel",
        "gpu_memory_gib": memory_gib,
        "gpus": {str(count): _layout(recipe, count, memory_gib) for count in gpus},
    }


def _has_own_layout(recipe: Recipe) -> bool:
    """Whether arms are laid out by the section [cluster], and not by [parallel]."""
    return recipe.cluster.training.parallel is not None


def _layout(recipe: Recipe, gpus: int, memory_gib: float) -> dict[str, Any]:
    problem = _problem(recipe, gpus)
    if problem is not None:
        return {"problem": f"cluster.training: {problem}" if _has_own_layout(recipe) else problem}
    training, model, parallel = recipe.training, recipe.model, recipe.layout("training")
    element = training.compute_dtype.itemsize
    places = [
        Sizes.of(
            model,
            parallel,
            gpus,
            place=place,
            sequence_length=training.sequence_length,
            global_batch=training.global_batch,
            micro_batch=training.micro_batch,
            element=element,
            checkpointing=training.activation_checkpointing,
        )
        for place in range(parallel.pipeline)
    ]
    peaks = [peak_memory(sizes) for sizes in places]
    place, peak = max(enumerate(peaks), key=lambda numbered: numbered[1].total)
    sizes = places[place]
    tokens = training.global_batch * training.sequence_length
    flops = {
        name: flops_per_token(model, training.sequence_length, causal=name == "causal") * tokens / gpus
        for name in ("causal", "full")
    }
    return {
        "layout": {
            "pp": sizes.pipeline,
            "dp_replicate": sizes.replicate,
            "dp_shard": sizes.shard,
            "cp": sizes.context,
            "tp": sizes.tensor,
        },
        "pipeline": {
            "place": place,
            "stages": [part.layers for part in sizes.parts],
            "bubble_share": bubble_share(parallel, sizes.micro_batches),
            "bubble_is_bound": parallel.defers_gradients,
        },
        "micro_batches": sizes.micro_batches,
        "parameters": rank_parameters(sizes),
        "flops": flops,
        "memory": {**asdict(peak), "total": peak.total},
        "fits": peak.total <= _USABLE * memory_gib * GIB,
        "communication": _communication(collectives(sizes)),
    }


def _problem(recipe: Recipe, gpus: int) -> str | None:
    """Why the recipe cannot be trained on so many GPUs."""
    training, parallel = recipe.training, recipe.layout("training")
    problem = layout_problem(parallel, recipe.model, training.sequence_length, gpus)
    if problem is not None:
        return problem
    readers = gpus // (parallel.pipeline * parallel.context * parallel.tensor)
    problem = batch_problem(training.global_batch, training.micro_batch, readers)
    return pipeline_problem(training, parallel, readers) if problem is None else f"training.{problem}"


def _communication(found: list[Collective]) -> list[dict[str, Any]]:
    """One entry for each axis and kind."""
    entries: dict[tuple[str, str], dict[str, Any]] = {}
    for one in found:
        entry = entries.setdefault(
            (one.axis, one.kind),
            {"axis": one.axis, "kind": one.kind, "ranks": one.ranks, "calls": 0, "bytes": 0, "sent": 0.0},
        )
        entry["calls"] += one.calls
        entry["bytes"] += one.bytes
        entry["sent"] += one.sent
    return list(entries.values())
