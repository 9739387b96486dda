"""Larger unique corpora: nested, of exact size, with all of the unique documents, and off by default."""

from pathlib import Path

import numpy as np
import pytest

from megasbp.errors import InputError
from megasbp.experiment.budget import plan_arm, trained_arms
from megasbp.experiment.multiple_stages import nested_documents
from megasbp.experiment.plan import plan
from megasbp.experiment.recipe import load_recipe

DEMO = Path(__file__).resolve().parents[2] / "configs" / "demo.toml"


def test_multiples_are_nested_and_hold_the_unique_documents() -> None:
    generator = np.random.default_rng(0)
    unique = np.zeros(600, bool)
    unique[generator.choice(600, 100, replace=False)] = True
    clusters = np.arange(600) - (np.arange(600) % 7 == 3)
    sizes = [100, 200, 400, 600]
    chosen = [set(nested_documents(unique, clusters, size, seed=1).tolist()) for size in sizes]
    assert [len(one) for one in chosen] == sizes
    assert chosen[0] == set(np.flatnonzero(unique).tolist())
    assert chosen[0] < chosen[1] < chosen[2] < chosen[3]
    # Not the first ones in reading order, and others under another seed.
    others = sorted(chosen[1] - chosen[0])
    assert others != np.flatnonzero(~unique)[:100].tolist()
    assert chosen[1] != set(nested_documents(unique, clusters, 200, seed=2).tolist())


def test_a_near_duplicate_is_taken_beside_the_other_one() -> None:
    clusters = np.repeat(np.arange(50), 2)
    chosen = nested_documents(np.zeros(100, bool), clusters, 40, seed=0)
    assert len(set(clusters[chosen].tolist())) == 20


def test_each_multiple_is_a_baseline_with_the_same_budget() -> None:
    recipe = load_recipe(DEMO, ["budget.multiples=[2, 4]"])
    assert trained_arms(recipe)[-2:] == ("baseline_x2", "baseline_x4")
    tokens = {"unique": 1000, "oracle": 9000, "unique_x2": 2000, "unique_x4": 4000, "synthetic": 10**6}
    plans = [plan_arm(arm, recipe, tokens) for arm in ("baseline", "baseline_x2", "baseline_x4")]
    assert len({one.total_tokens for one in plans}) == 1
    assert plans[2].epochs["unique_x4"] == plans[0].epochs["unique"] / 4
    assert plan(recipe)["arms"]["baseline_x2"]["tokens"].keys() == {"unique_x2"}


def test_without_the_option_nothing_is_added() -> None:
    recipe = load_recipe(DEMO)
    assert trained_arms(recipe) == recipe.budget.arms
    with pytest.raises(InputError, match="unknown arm 'baseline_x2'"):
        plan_arm("baseline_x2", recipe, {"unique": 1000})


@pytest.mark.parametrize(
    ("multiples", "message"),
    [
        ("[4, 2]", "set them ascending and above 1"),
        ("[1]", "set them ascending and above 1"),
        ("[8]", "set corpus.oracle to at least 7200"),
    ],
)
def test_impossible_multiples_are_refused_with_the_mend(multiples: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_recipe(DEMO, [f"budget.multiples={multiples}"])
