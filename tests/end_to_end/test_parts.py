"""Each part of a recipe made alone: what it says it needs is what it reads."""

from pathlib import Path
from typing import Any

import pytest
import torch

from megasbp.cli import main
from megasbp.experiment.method import Method
from megasbp.experiment.parts import REPORT, find_part, parts, parts_until
from megasbp.experiment.recipe import Recipe, load_recipe
from megasbp.experiment.stages import StageResult, Workspace
from megasbp.parallel.runtime import Runtime


class Asked(Workspace):
    """Finds finished stages, and notes which it was asked for."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, makes=())
        self.names: set[str] = set()

    def stage(self, name: str, **arguments: Any) -> StageResult:
        self.names.add(name)
        return super().stage(name, **arguments)


@pytest.fixture(scope="module")
def recipe(finished_run: Path) -> Recipe:
    return load_recipe(finished_run / "small.toml")


def test_a_part_reads_nothing_but_what_comes_before_it_and_all_that_it_needs(recipe: Recipe) -> None:
    before: dict[str, set[str]] = {}
    listed = {part.name: part for part in parts(recipe)}
    for part in (part for part in parts(recipe) if part.name != REPORT):
        workspace = Asked(recipe.folder)
        part.make(Method(recipe, workspace, Runtime(0, 1, torch.device("cpu"))))
        needs = {need: set(listed[need].stages) for need in part.needs}
        # What a need needs is there too.
        before[part.name] = set(part.stages).union(*(before[need] for need in needs))
        assert set(part.stages) <= workspace.names <= before[part.name]
        assert all(stages <= workspace.names for stages in needs.values())


def test_a_piece_reads_nothing_but_what_comes_before_its_part(recipe: Recipe) -> None:
    listed = {part.name: part for part in parts(recipe)}
    part = listed["seed-0/train-baseline"]
    assert len(part.pieces) == 2
    found = set()
    for piece in part.pieces:
        workspace = Asked(recipe.folder)
        piece(Method(recipe, workspace, Runtime(0, 1, torch.device("cpu"))))
        assert workspace.names <= {*listed["corpus"].stages, *part.stages}
        found.add(workspace.used[-1])
    # Two pieces never meet in one folder.
    assert len(found) == 2


def test_every_stage_of_a_run_belongs_to_one_part(recipe: Recipe) -> None:
    named = [stage for part in parts(recipe) for stage in part.stages]
    made = {
        folder.parent.relative_to(recipe.folder).as_posix().rpartition("-")[0]
        for pattern in ("*/manifest.json", "seed-*/*/manifest.json")
        for folder in recipe.folder.glob(pattern)
    }
    assert sorted(named) == sorted(made)


def test_parts_end_with_the_one_that_makes_a_stage(recipe: Recipe) -> None:
    assert [part.name for part in parts_until(recipe, ["datasets"])] == ["corpus"]
    assert parts_until(recipe, ["losses-sbp"])[-1].name == "seed-0/losses"
    # What nothing of it needs is left out, wherever it stands in the list.
    assert not {"seed-0/embed-sbp", "seed-0/triples"} & {
        part.name for part in parts_until(recipe, ["losses"])
    }
    both = [part.name for part in parts_until(recipe, ["pairs", "train-baseline"])]
    assert both == ["corpus", "seed-0/train-baseline", "embed", "seed-0/pairs"]
    assert find_part(recipe, "train-sbp").name == "seed-0/train-sbp"


def test_an_unknown_stage_is_refused_with_those_there_are(
    recipe: Recipe, finished_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["stage", str(finished_run / "small.toml"), "train-spb"]) == 2
    assert (
        "train-spb: no such stage; this recipe's are corpus, seed-0/train-baseline" in capsys.readouterr().err
    )


def test_a_stage_whose_earlier_ones_are_missing_names_the_first(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["stage", str(finished_run / "small.toml"), "train-sbp", f"runs={tmp_path}"]
    assert main(arguments) == 2
    line = capsys.readouterr().err
    assert (
        "seed-0/train-sbp: needs split, which is not made yet; `megasbp stage RECIPE corpus` makes it" in line
    )
    assert not list(tmp_path.rglob("manifest.json"))


@pytest.mark.parametrize("seeds", [(0,), (3, 4)])
@pytest.mark.parametrize("embedder", ["tfidf", "checkpoint", "none"])
def test_needs_come_first(recipe: Recipe, seeds: tuple[int, ...], embedder: str) -> None:
    pairing = recipe.pairing.model_copy(update={"embedder": embedder})
    listed = parts(recipe.model_copy(update={"seeds": seeds, "pairing": pairing}))
    names = [part.name for part in listed]
    assert len(set(names)) == len(names)
    for number, part in enumerate(listed):
        assert set(part.needs) <= set(names[:number])
