"""Trainings that diverged: a fact of their stage, so that a run goes on without what needs their weights."""

from collections.abc import Sequence
from typing import Any

from megasbp.errors import InputError
from megasbp.experiment.context import Context, training_facts
from megasbp.experiment.stages import StageResult
from megasbp.training.trainer import Diverged, TrainingJob, train


class DivergedStage(InputError):
    """What is asked for needs the weights of a training that diverged.

    Attributes:
        stage: its name.
        finding: what was not finite, and where.
    """

    def __init__(self, stage: str, finding: str) -> None:
        super().__init__(f"{stage} diverged: {finding}")
        self.stage, self.finding = stage, finding


def train_in_stage(context: Context, stage: str, job: TrainingJob) -> dict[str, Any]:
    """Trains in the folder of a stage, and says so where that diverges.

    Returns:
        Facts, as of `training_facts`. A training that diverged has "diverged", what was not finite and where,
        in place of checkpoints, and None for its losses.
    """
    try:
        return training_facts(train(job, context.runtime), job.folder)
    except Diverged as found:
        context.workspace.announce(f"{stage}: {found}")
        return {
            "diverged": found.finding,
            "steps": found.state.step,
            "input_tokens": found.state.input_tokens,
            "valid_tokens": found.state.valid_tokens,
            "best_validation_loss": None,
            "final_validation_loss": None,
            "history": found.state.history,
        }


def loss_of(trial: StageResult, name: str) -> float:
    """A trial's loss by the name of its fact; infinite where it diverged, so that it is never chosen."""
    return float("inf") if "diverged" in trial.facts else trial.facts[name]


def require_finite(trained: StageResult) -> StageResult:
    """The training.

    Raises:
        DivergedStage: it diverged.
    """
    if "diverged" in trained.facts:
        finding = f"{trained.facts['diverged']}, at learning rate {trained.facts['learning_rate']:g}"
        raise DivergedStage(trained.manifest.stage, finding)
    return trained


def rates_of(trials: Sequence[StageResult]) -> str:
    """The learning rates of trials in words."""
    return ", ".join(f"{rate:g}" for rate in sorted({trial.facts["learning_rate"] for trial in trials}))
