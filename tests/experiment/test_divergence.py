"""A training that diverges is a fact of its stage: never chosen, and nothing is made of its weights."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from megasbp.errors import InputError
from megasbp.experiment import divergence
from megasbp.experiment.arm_stages import Chosen, best_setting
from megasbp.experiment.divergence import DivergedStage, require_finite, train_in_stage
from megasbp.experiment.part import seed_part
from megasbp.experiment.results import assemble
from megasbp.experiment.stages import StageResult, Workspace
from megasbp.experiment.synthesizer_stages import best_synthesizer
from megasbp.storage import Manifest
from megasbp.training.trainer import Diverged, RunState

FINDING = "the validation loss is not finite at step 7"
POINT = {"step": 4, "tokens": 400, "validation_loss": 5.0}


def trial(rate: float, loss: float | None, stage: str = "seed-3/train-baseline") -> StageResult:
    """A finished training; one without a loss diverged."""
    facts = {"learning_rate": rate, "final_validation_loss": loss, "best_validation_loss": loss}
    if loss is None:
        facts["diverged"] = FINDING
    return StageResult(Path(f"{rate:g}"), Manifest(stage, {}, {}, facts=facts))


def test_a_setting_that_diverged_is_never_chosen() -> None:
    grid = [Chosen(rate, 0.1) for rate in (0.1, 0.2, 0.3)]
    trials = [trial(0.1, 4.0), trial(0.2, None), trial(0.3, 3.5)]
    assert best_setting(grid, trials) == grid[2]
    assert best_synthesizer(trials) is trials[2]


def test_where_every_setting_diverged_the_error_names_the_rates() -> None:
    trials = [trial(0.3, None), trial(0.1, None), trial(0.3, None)]
    grid = [Chosen(0.3, 0.1), Chosen(0.1, 0.1), Chosen(0.3, 0.2)]
    with pytest.raises(InputError) as grid_error:
        best_setting(grid, trials)
    assert str(grid_error.value) == (
        "seed-3/train-baseline: every trial diverged, at the learning rates 0.1, 0.3; "
        "lower tuning.learning_rates"
    )
    assert not isinstance(grid_error.value, DivergedStage)
    with pytest.raises(
        DivergedStage, match=r"at every one of synthesizer\.learning_rates \(0\.1, 0\.3\); lower"
    ):
        best_synthesizer(trials)
    with pytest.raises(
        DivergedStage, match=f"^seed-3/train-baseline diverged: {FINDING}, at learning rate 0.3$"
    ):
        best_synthesizer(trials[:1])


def test_a_training_that_diverges_in_a_stage_is_said_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job: Any = SimpleNamespace(
        name="seed-3/sbp", training=SimpleNamespace(learning_rate=0.03), folder=tmp_path
    )
    state = RunState(step=7, input_tokens=700, valid_tokens=650, history=[POINT])

    def diverge(*given: object) -> None:
        raise Diverged(job, FINDING, state)

    monkeypatch.setattr(divergence, "train", diverge)
    said: list[str] = []
    workspace = Workspace(tmp_path, said.append)
    context: Any = SimpleNamespace(workspace=workspace, runtime=None)
    made = workspace.stage(
        "seed-3/train-sbp",
        inputs={},
        settings={},
        make=lambda folder: {**train_in_stage(context, "seed-3/train-sbp", job), "learning_rate": 0.03},
    )
    assert made.facts == {
        "diverged": FINDING,
        "steps": 7,
        "input_tokens": 700,
        "valid_tokens": 650,
        "best_validation_loss": None,
        "final_validation_loss": None,
        "history": [POINT],
        "learning_rate": 0.03,
    }
    assert said[1] == (
        f"seed-3/train-sbp: seed-3/sbp: diverged: {FINDING}; lower training.learning_rate (now 0.03)"
    )
    with pytest.raises(DivergedStage, match="seed-3/train-sbp diverged"):
        require_finite(made)


@pytest.mark.parametrize(("makes", "lines"), [(None, 1), (["seed-3/losses"], 1), ([], 0)])
def test_a_part_that_needs_its_weights_is_finished_without_it(makes: Any, lines: int, tmp_path: Path) -> None:
    def make(stages: object) -> object:
        return require_finite(trial(0.3, None, "seed-3/train-sbp"))

    part = seed_part(3, "losses", "evaluation", (), make, pieces=[make])
    said: list[str] = []
    method: Any = SimpleNamespace(workspace=Workspace(tmp_path, said.append, makes), seed=lambda seed: None)
    for one in (part.make, *part.pieces):
        said.clear()
        one(method)
        line = f"seed-3/losses: left out; seed-3/train-sbp diverged: {FINDING}, at learning rate 0.3"
        assert said == [line] * lines


def test_where_no_seed_is_left_the_error_says_why() -> None:
    recipe: Any = SimpleNamespace(name="small")
    found = {0: FINDING, 1: "so"}
    left_out = {seed: [DivergedStage(f"seed-{seed}/train-sbp", words)] for seed, words in found.items()}
    with pytest.raises(InputError) as error:
        assemble(recipe, [], left_out)
    assert str(error.value) == (
        f"small: every seed is left out: seed-0/train-sbp diverged: {FINDING}; "
        "seed-1/train-sbp diverged: so; lower these learning rates"
    )
