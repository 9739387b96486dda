"""Makes a recipe's parts: all of them in this process, or one, which several ranks may make together."""

import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from megasbp.errors import InputError
from megasbp.experiment.corpus_stages import require_corpus
from megasbp.experiment.disk import estimate_disk
from megasbp.experiment.downstream_stages import require_downstream
from megasbp.experiment.gates import ClosedGate
from megasbp.experiment.method import Method
from megasbp.experiment.part import Part
from megasbp.experiment.parts import REPORT, find_part, parts_until
from megasbp.experiment.plan import plan
from megasbp.experiment.recipe import Recipe
from megasbp.experiment.stages import MissingStage, Workspace
from megasbp.launch.config import ONE_PROCESS
from megasbp.pairing.embedders import require_embedder
from megasbp.parallel.runtime import Runtime
from megasbp.shards.lock import folder_lock
from megasbp.shards.ray_engine import require_ray
from megasbp.storage import require_free_space
from megasbp.synthesis.vllm_engine import require_vllm


def run_experiment(
    recipe: Recipe,
    announce: Callable[[str], None],
    announce_plan: Callable[[dict[str, Any]], None],
    until: Sequence[str] | None = None,
    variant: Path | None = None,
) -> None:
    """Makes every stage that is missing or changed, then results.json.

    Args:
        announce: receives one line per stage.
        announce_plan: receives the exact plan (`plan.plan`) when the corpus is tokenised, before training.
        until: stages; nothing is made but them and what they need.
        variant: see `Method`.

    Raises:
        InputError: a setting or an input is impossible; what was finished before stays.
    """
    wanted = parts_until(recipe, until)
    require_inputs(recipe, wanted)
    runtime = start_runtime(recipe)
    with folder_lock(recipe.folder):
        method = Method(recipe, Workspace(recipe.folder, announce), runtime, variant)
        for part in wanted:
            part.make(method)
            if part.name == "corpus":
                announce_plan(plan(recipe))


def make_part(
    recipe: Recipe,
    part: Part,
    runtime: Runtime,
    announce: Callable[[str], None],
    piece: int | None = None,
    variant: Path | None = None,
) -> None:
    """Makes one part, whose needs are finished; under torchrun all ranks call it.

    Args:
        piece: makes this one of its pieces alone.
        variant: see `Method`.

    Raises:
        InputError: another part must be made first, or it is made by one process and these are several.
    """
    if runtime.world_size > 1 and part.kind in ONE_PROCESS:
        raise InputError(
            f"{part.name}: is made by one process, not by torchrun's {runtime.world_size}; start it without "
            "torchrun"
        )
    if part.kind not in ONE_PROCESS:
        _require_gpu(recipe, part, runtime)
        if runtime.world_size > 1:
            announce(f"{part.name}: {runtime.described}")
    workspace = Workspace(recipe.folder, announce, makes=part.stages, runtime=runtime)
    make = part.make if piece is None else part.pieces[piece]
    try:
        make(Method(recipe, workspace, runtime, variant))
    except MissingStage as missing:
        first = find_part(recipe, missing.stage).name
        raise InputError(
            f"{part.name}: needs {missing.stage}, which is not made yet; `megasbp stage RECIPE {first}` "
            "makes it"
        ) from None


def _require_gpu(recipe: Recipe, part: Part, runtime: Runtime) -> None:
    """Refuses to train on processors where the recipe asks for GPUs: it would not come to an end."""
    asked = recipe.cluster.of(part.kind).gpus
    if asked and runtime.device.type == "cpu":
        raise InputError(
            f"{part.name}: cluster.{part.kind}.gpus is {asked}, and {socket.gethostname()} shows this "
            f"process no GPU; mend the driver or CUDA_VISIBLE_DEVICES, or set cluster.{part.kind}.gpus=0"
        )


class Finished:
    """Which parts are finished, as the disk has it now."""

    def __init__(self, recipe: Recipe) -> None:
        workspace = Workspace(recipe.folder, makes=())
        # It remembers the stages that it has found, so asking again is cheap.
        self._method = Method(recipe, workspace, Runtime(0, 1, torch.device("cpu")))

    def __call__(self, part: Part) -> bool:
        """Whether all stages of a part are there; the report is always drawn anew."""
        if part.name == REPORT:
            return False
        try:
            part.make(self._method)
        except (MissingStage, ClosedGate):
            # A part that a closed gate stands before is started, so that it says so.
            return False
        return True


def require_inputs(recipe: Recipe, wanted: Sequence[Part]) -> None:
    """Says that a file or a package is missing, or disk, before anything is made.

    Args:
        wanted: the parts that are to be made, finished ones among them.

    Raises:
        InputError: what is missing, and the mend.
    """
    require_corpus(recipe)
    _require_packages(recipe, wanted)
    recipe.pairing.file()
    recipe.quality.require_inputs(recipe.evaluation.downstream.data)
    require_downstream(recipe)
    require_free_space(recipe.folder, estimate_disk(recipe).total, beside_what_is_there=True)


def _require_packages(recipe: Recipe, wanted: Sequence[Part]) -> None:
    """Refuses what only parts behind the long trainings would find missing."""
    finished = Finished(recipe)

    def left(kind: str) -> bool:
        named = (part for part in wanted if part.name.rpartition("/")[2].startswith(kind))
        return any(part.name != REPORT and not finished(part) for part in named)

    if left("embed"):
        require_embedder(recipe.pairing.embedder)
    if recipe.synthesis.backend == "vllm" and left("synthesis-"):
        require_vllm()
    if recipe.shards.engine == "ray" and left(""):
        require_ray()


def start_runtime(recipe: Recipe, part: Part | None = None) -> Runtime:
    """One process with the recipe's number of threads, or torchrun's group in the layout of a part."""
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    if part is None:
        return Runtime.start(recipe.parallel)
    return Runtime.start(recipe.layout(part.kind))
