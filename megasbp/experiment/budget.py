"""What each arm is trained on, to the token: the matched budget."""

from collections.abc import Mapping
from dataclasses import dataclass

from megasbp.errors import InputError
from megasbp.experiment.arms import ARMS, share_of
from megasbp.experiment.recipe import Recipe

# Baselines that spend on training what SBP spends from end to end -> the reading of SBP's ledger.
EQUAL_FLOPS_ARMS = {"baseline_flops_owned": "owned", "baseline_flops_counted": "counted"}
_MULTIPLE = "baseline_x"


def budget_arms(recipe: Recipe) -> tuple[str, ...]:
    """What is trained on the budget: the arms, and a baseline for each multiple of the unique text."""
    return (*recipe.budget.arms, *(multiple_arm(multiple) for multiple in recipe.budget.multiples))


def trained_arms(recipe: Recipe) -> tuple[str, ...]:
    """All that is trained: those on the budget, and the baselines of SBP's operations."""
    return (*budget_arms(recipe), *(EQUAL_FLOPS_ARMS if recipe.budget.equal_flops else ()))


def multiple_arm(multiple: int) -> str:
    """The baseline on so many times the unique documents: "baseline_x2"."""
    return f"{_MULTIPLE}{multiple}"


def multiple_source(multiple: int) -> str:
    """What that baseline is trained on: "unique_x2"."""
    return f"unique_x{multiple}"


@dataclass(frozen=True)
class ArmPlan:
    """The exact plan of one arm.

    Attributes:
        arm: its name.
        steps: optimiser steps.
        samples: source -> sequences drawn from it over the whole run.
        tokens: source -> input tokens drawn from it (sequences are full: no padding).
        epochs: source -> passes over it.
        phases: the samples in parts that are trained on one after the other; the whole run is one, unless
            the synthetic text ends early.
        synthetic_tokens: of the tokens, those that a model wrote.
    """

    arm: str
    steps: int
    samples: dict[str, int]
    tokens: dict[str, int]
    epochs: dict[str, float]
    phases: tuple[dict[str, int], ...]
    synthetic_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Matched tokens of the arm."""
        return sum(self.tokens.values())

    @property
    def synthetic_share(self) -> float:
        """Share of the tokens that is synthetic."""
        return self.synthetic_tokens / self.total_tokens


def synthetic_need(recipe: Recipe) -> int:
    """Accepted synthetic tokens that an arm with synthetic text needs, separators included."""
    total = _total_samples(recipe)
    return max(1, round(total * recipe.budget.synthetic_share)) * recipe.training.sequence_length


def plan_arm(
    arm: str,
    recipe: Recipe,
    tokens: Mapping[str, int],
    steps: int | None = None,
    budget_share: float = 1.0,
) -> ArmPlan:
    """The plan of `arm`.

    Args:
        tokens: tokens of "unique", "oracle", each multiple ("unique_x2") and what fills the arm's share
            (`arms.Share`); separators count. Of "seeded" rows the whole budget reads all, and "synthetic" is
            what of them a model wrote.
        steps: optimiser steps of a baseline at equal operations; None for an arm on the budget.
        budget_share: of an arm on the budget: what it gets of it, and of everything in it.

    Raises:
        InputError: a source holds less than one sequence, the synthetic corpus is too small, or the seeded
            rows are more than the budget.
    """
    batch, length = recipe.training.global_batch, recipe.training.sequence_length
    whole = _total_samples(recipe)
    if steps is None:
        steps = max(1, int(budget_share * (whole // batch)))
    total = steps * batch
    multiples = {multiple_arm(multiple): multiple_source(multiple) for multiple in recipe.budget.multiples}
    known = (*ARMS, *multiples, *EQUAL_FLOPS_ARMS)
    if arm not in known:
        raise InputError(f"unknown arm {arm!r}; known: {', '.join(known)}")
    share = share_of(arm)
    if share is None:
        samples = {multiples.get(arm, "oracle" if arm == "oracle" else "unique"): total}
    else:
        there = (tokens[share] if share == "seeded" else synthetic_need(recipe)) // length
        if there >= whole:
            raise InputError(
                f"{arm}: its synthetic text takes {there * length} tokens with its seeds, the budget has "
                f"{whole * length}; lower budget.synthetic_share"
            )
        rows = max(1, there * total // whole)
        samples = {"unique": total - rows, share: rows}
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
    synthetic = drawn.get("synthetic", 0)
    if share == "seeded":
        # Of a share of the rows, as much as they have in the mean.
        synthetic = round(tokens["synthetic"] * rows / there)
    return ArmPlan(arm, steps, samples, drawn, epochs, _phases(samples, recipe), synthetic)


def _phases(samples: dict[str, int], recipe: Recipe) -> tuple[dict[str, int], ...]:
    """Where the synthetic text ends early, a phase that has all of it, and one of unique text alone."""
    total, others = sum(samples.values()), [source for source in samples if source != "unique"]
    rows = sum(samples[source] for source in others)
    first = max(round(total * recipe.budget.synthetic_until), rows)
    if not others or "unique" not in samples or first == total:
        return (samples,)
    return samples | {"unique": first - rows}, dict.fromkeys(others, 0) | {"unique": total - first}


def _total_samples(recipe: Recipe) -> int:
    step = recipe.training.global_batch * recipe.training.sequence_length
    return recipe.budget.tokens_per_arm // step * recipe.training.global_batch
