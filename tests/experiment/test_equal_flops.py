"""The third view: a baseline that spends in training what SBP spends in all, to within one step."""

from dataclasses import replace
from pathlib import Path

import pytest

from megasbp.errors import InputError
from megasbp.experiment.budget import EQUAL_FLOPS_ARMS, budget_arms, plan_arm, trained_arms
from megasbp.experiment.ledger import Search, Work, Writing, equal_steps, ledger
from megasbp.experiment.recipe import Recipe, load_recipe
from megasbp.model.flops import flops_per_token

DEMO = Path(__file__).resolve().parents[2] / "configs" / "demo.toml"
TOKENS = {"unique": 130_000, "oracle": 900_000, "synthetic": 10**6}
WORK = Work(
    pretraining_tokens=600_000,
    search=Search(embedded_tokens=130_000, embedder_parameters=22_000_000, multiply_adds=900**2 * 384),
    writing=Writing(
        context=512,
        tuned_tokens=400_000,
        swept_tokens=900_000,
        prefill_tokens=250_000,
        generated_tokens=300_000,
    ),
)


def spent(recipe: Recipe, arm: str, steps: int | None = None) -> dict:
    """Ledger of an arm of a tuned grid of three."""
    work = WORK if arm == "sbp" else Work()
    return ledger(recipe, plan_arm(arm, recipe, TOKENS, steps), work, 2 * 600_000)


def without_sweeps(ledger: dict, total: str) -> float:
    return ledger[total] - ledger["flops"]["sweeps"]


@pytest.mark.parametrize(("arm", "reading"), EQUAL_FLOPS_ARMS.items())
def test_its_operations_are_sbps_to_within_one_step(arm: str, reading: str) -> None:
    recipe = load_recipe(DEMO, ["budget.equal_flops=true"])
    goal = spent(recipe, "sbp")
    own = spent(recipe, arm, equal_steps(recipe, goal, reading))
    step = recipe.training.global_batch * recipe.training.sequence_length
    one_step = step * flops_per_token(recipe.model, recipe.training.sequence_length, causal=True)
    left = without_sweeps(goal, f"total_flops_{reading}") - without_sweeps(own, "total_flops_counted")
    assert 0 <= left < one_step
    assert own["matched_tokens"] > goal["matched_tokens"]


def test_tunings_that_only_chose_the_synthesizers_learning_rate_allow_the_baseline_no_step() -> None:
    recipe = load_recipe(DEMO)
    plan, work = plan_arm("sbp", recipe, TOKENS), WORK
    assert work.writing is not None
    without = replace(work, writing=replace(work.writing, swept_tokens=0))
    steps = {equal_steps(recipe, ledger(recipe, plan, one, 0), "counted") for one in (work, without)}
    # By hand: SBP's budget, the first model, one tuning, writing and the search, in tokens of training.
    training = flops_per_token(recipe.model, recipe.training.sequence_length, causal=True)
    writer = flops_per_token(recipe.model, 512, causal=True)
    search = 2.0 * (22_000_000 * 130_000 + 900**2 * 384)
    spent = training * (plan.total_tokens + 600_000) + writer * (400_000 + 550_000 / 3) + search
    step = recipe.training.global_batch * recipe.training.sequence_length
    assert steps == {int(spent // (training * step))}


def test_counting_the_initial_model_allows_the_baseline_more() -> None:
    recipe = load_recipe(DEMO)
    goal = spent(recipe, "sbp")
    more = equal_steps(recipe, goal, "counted") - equal_steps(recipe, goal, "owned")
    assert more == pytest.approx(600_000 / 2048, abs=1)


def test_the_arms_are_off_by_default_and_need_sbp() -> None:
    recipe = load_recipe(DEMO, ["budget.equal_flops=true"])
    assert trained_arms(recipe) == (*budget_arms(recipe), *EQUAL_FLOPS_ARMS)
    assert trained_arms(load_recipe(DEMO)) == budget_arms(load_recipe(DEMO))
    with pytest.raises(InputError, match="add 'sbp' to arms"):
        load_recipe(DEMO, ["budget.equal_flops=true", "budget.arms=['baseline', 'oracle']"])
