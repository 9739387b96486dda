"""What each arm is trained on, to the token: the matched budget."""

from collections.abc import Mapping
from dataclasses import dataclass

from megasbp.errors import InputError
from megasbp.experiment.arms import ARMS
from megasbp.experiment.recipe import Recipe


@dataclass(frozen=True)
class ArmPlan:
    """The exact plan of one arm.

    Attributes:
        arm: its name.
        steps: optimiser steps.
        samples: source -> sequences drawn from it over the whole run.
        tokens: source -> input tokens drawn from it (sequences are full: no padding).
        epochs: source -> passes over it.
    """

    arm: str
    steps: int
    samples: dict[str, int]
    tokens: dict[str, int]
    epochs: dict[str, float]

    @property
    def total_tokens(self) -> int:
        """Matched tokens of the arm."""
        return sum(self.tokens.values())

    @property
    def synthetic_share(self) -> float:
        """Share of the tokens that is synthetic."""
        return self.tokens.get("synthetic", 0) / self.total_tokens


def synthetic_need(recipe: Recipe) -> int:
    """Accepted synthetic tokens that an arm with synthetic text needs, separators included."""
    total = _total_samples(recipe)
    return max(1, round(total * recipe.budget.synthetic_share)) * recipe.training.sequence_length


def plan_arm(arm: str, recipe: Recipe, tokens: Mapping[str, int]) -> ArmPlan:
    """The plan of `arm`.

    Args:
        tokens: tokens of "unique", "oracle" and, for arms with synthetic text, "synthetic"; separators count.

    Raises:
        InputError: a source holds less than one sequence, or the synthetic corpus is too small.
    """
    total = _total_samples(recipe)
    length = recipe.training.sequence_length
    if arm not in ARMS:
        raise InputError(f"unknown arm {arm!r}; known: {', '.join(ARMS)}")
    if arm == "baseline":
        samples = {"unique": total}
    elif arm == "oracle":
        samples = {"oracle": total}
    else:
        synthetic = synthetic_need(recipe) // length
        samples = {"unique": total - synthetic, "synthetic": synthetic}
    for source in samples:
        if tokens[source] < length:
            raise InputError(
                f"{source}: {tokens[source]} tokens are less than one sequence of {length}; "
                "give more text or set a smaller training.sequence_length"
            )
    if "synthetic" in samples and samples["synthetic"] > tokens["synthetic"] // length:
        raise InputError(
            f"{arm}: needs {samples['synthetic'] * length} synthetic tokens, each seen once; "
            f"the synthetic corpus has {tokens['synthetic']}"
        )
    drawn = {source: count * length for source, count in samples.items()}
    epochs = {source: count / tokens[source] for source, count in drawn.items()}
    return ArmPlan(arm, total // recipe.training.global_batch, samples, drawn, epochs)


def _total_samples(recipe: Recipe) -> int:
    step = recipe.training.global_batch * recipe.training.sequence_length
    return recipe.budget.tokens_per_arm // step * recipe.training.global_batch
