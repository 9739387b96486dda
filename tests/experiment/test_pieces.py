"""Which parts are taken apart where several are made side by side."""

from pathlib import Path

from megasbp.experiment.parts import parts
from megasbp.experiment.recipe import load_recipe

DEMO = Path(__file__).resolve().parents[2] / "configs" / "demo.toml"


def pieces(*overrides: str) -> dict[str, int]:
    """How many pieces there are of each part that is trained."""
    recipe = load_recipe(DEMO, ["seeds=[3, 4]", "budget.multiples=[]", *overrides])
    kinds = {"training", "tuning"}
    return {part.name: len(part.pieces) for part in parts(recipe) if part.pieces and part.kind in kinds}


def test_trials_of_the_first_seed_and_learning_rates_of_synthesizers_are_pieces() -> None:
    arms = 'budget.arms=["baseline", "sbp", "second_round"]'
    tuning = ("tuning.learning_rates=[1e-3, 3e-3, 1e-2]", "tuning.weight_decays=[0.1, 0.5]")
    rates = "synthesizer.learning_rates=[1e-4, 3e-4]"
    synthesizers = {f"seed-{seed}/synthesizer-{kind}": 2 for seed in (3, 4) for kind in ("true", "second")}
    baseline = {"seed-3/train-baseline": 6}
    assert pieces(arms, *tuning, rates) == synthesizers | baseline
    own = {f"seed-3/train-{arm}": 6 for arm in ("sbp", "second_round")}
    assert pieces(arms, *tuning, rates, "tuning.arms=each") == synthesizers | baseline | own


def test_what_is_tried_at_one_setting_or_at_equal_ones_is_no_pieces() -> None:
    # Two pieces that make the same stage would meet in its folder.
    once = ("tuning.learning_rates=[1e-3, 1e-3]", "tuning.weight_decays=[]")
    assert pieces(*once, "synthesizer.learning_rates=[1e-4]") == {}


def test_each_text_and_each_arm_is_measured_on_its_own() -> None:
    recipe = load_recipe(DEMO, ['budget.arms=["baseline", "sbp", "random_pairs", "oracle"]'])
    found = {part.name: len(part.pieces) for part in parts(recipe)}
    # Real text and that of two arms; the losses of four arms.
    assert found["seed-0/quality"] == 3
    assert found["seed-0/losses"] == 4
