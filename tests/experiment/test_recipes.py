"""The recipes in configs/: they load, and the paper's scales give the paper's epochs."""

from pathlib import Path
from typing import get_args

import pytest

from megasbp.errors import InputError
from megasbp.experiment.dry_run import dry_run
from megasbp.experiment.plan import plan
from megasbp.experiment.recipe import load_recipe
from megasbp.launch.config import Kind

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.stem)
def test_every_recipe_loads_and_plans(path: Path) -> None:
    planned = plan(load_recipe(path))
    assert planned["name"] == path.stem
    assert len({sum(arm["tokens"].values()) for arm in planned["arms"].values()}) == 1


# arXiv 2509.15248: epochs over the unique tokens for repetition and for SBP, synthetic tokens once.
@pytest.mark.parametrize(
    "name, baseline_epochs, sbp_epochs, synthetic_tokens, oracle_epochs",
    [
        ("sbp_3b_200b", 20.0, 12.5, 75e9, 1.0),
        ("sbp_3b_1t", 20.0, 17.5, 125e9, 2.08),
        ("sbp_6b_1t", 20.0, 15.0, 250e9, 2.08),
    ],
)
def test_paper_scales(
    name: str, baseline_epochs: float, sbp_epochs: float, synthetic_tokens: float, oracle_epochs: float
) -> None:
    arms = plan(load_recipe(CONFIGS / f"{name}.toml"))["arms"]
    # A budget is cut to whole steps of 8.4M tokens: at most 1 part in 20,000 of it.
    assert arms["baseline"]["epochs"]["unique"] == pytest.approx(baseline_epochs, rel=1e-3)
    assert arms["sbp"]["epochs"]["unique"] == pytest.approx(sbp_epochs, rel=1e-3)
    assert arms["sbp"]["tokens"]["synthetic"] == pytest.approx(synthetic_tokens, rel=1e-3)
    assert arms["oracle"]["epochs"]["oracle"] == pytest.approx(oracle_epochs, rel=5e-3)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("sbp_*.toml")), ids=lambda path: path.stem)
def test_the_papers_recipes_fit_the_gpus_that_they_ask_for(path: Path) -> None:
    recipe = load_recipe(path)
    assert all(recipe.cluster.of(kind).gpus == 8 for kind in get_args(Kind))
    assert recipe.shards.gpus == 1
    (found,) = dry_run(recipe, (recipe.cluster.training.ranks,), 141.0)["gpus"].values()
    assert found["fits"], found
    # As the recipe says of smaller ones.
    smaller = load_recipe(path, ["training.micro_batch=4"])
    (found,) = dry_run(smaller, (64,), 80.0)["gpus"].values()
    assert found["fits"] == path.stem.startswith("sbp_3b")


def test_a_plan_counts_all_seeds_and_trials() -> None:
    one = plan(load_recipe(CONFIGS / "wiki.toml", ["seeds=[0]", "tuning.learning_rates=[]"]))
    # Two weight decays are left: one of them is the baseline itself.
    baseline = one["arms"]["baseline"]["flops"]
    assert one["trials"] == {"settings": 2, "arms": "baseline", "flops": baseline}
    parts = (*one["arms"].values(), *one["stages"].values())
    once = sum(part.get("flops", 0) for part in parts)
    assert one["flops"] == once + baseline
    five = plan(load_recipe(CONFIGS / "wiki.toml", ["tuning.arms=each"]))
    assert five["trials"]["flops"] == 3 * sum(arm["flops"] for arm in five["arms"].values())
    assert five["flops"] == 5 * once + five["trials"]["flops"]


def test_overrides_replace_values_and_keep_types() -> None:
    recipe = load_recipe(
        CONFIGS / "demo.toml", ["training.learning_rate=1e-3", "seeds=[1, 2]", "pairing.embedder=tfidf"]
    )
    assert recipe.training.learning_rate == 1e-3
    assert recipe.seeds == (1, 2)
    assert recipe.pairing.embedder == "tfidf"


@pytest.mark.parametrize(
    "override, message",
    [
        ("training.lerning_rate=1", "did you mean 'learning_rate'"),
        ("nonsense=1", "unknown setting"),
        ("budget.arms=['sbp']", "must name 'baseline'"),
        ("seeds=[0, 0]", "repeat"),
        ("model.maximum_positions=100", "set it to at least 512"),
        ("synthesizer.micro_batch=3", "not a multiple of"),
        ("corpus.vocabulary_size=8192", "exceeds model.vocabulary_size"),
        ("budget.synthetic_until=0.2", "synthetic_share 0.375 of the budget; set it to at least that"),
        ("budget.tokens_per_arm=10", "below one optimiser step"),
        ("training.learning_rate=0.1", "at most 0.094, or set model.mup_base_width"),
        ("parallel.tensr=2", "did you mean 'tensor'"),
        ("training", "is not an override"),
        ("name.x=1", "not a section"),
    ],
)
def test_impossible_settings_are_refused_with_the_mend(override: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_recipe(CONFIGS / "demo.toml", [override])


@pytest.mark.parametrize("where", ["parallel", "cluster.tuning.parallel"])
def test_8_bit_products_do_not_overlap_with_exchanges(where: str) -> None:
    fp8 = ["training.precision=bf16", "training.fp8=rowwise"]
    layout = [f"{where}={{tensor = 2, asynchronous_tensor = true}}"]
    load_recipe(CONFIGS / "demo.toml", fp8)
    with pytest.raises(InputError, match=r"fp8 and parallel\.asynchronous_tensor do not go together"):
        load_recipe(CONFIGS / "demo.toml", fp8 + layout)


def test_the_papers_learning_rate_needs_mup() -> None:
    path, rate = CONFIGS / "sbp_3b_200b.toml", "training.learning_rate=1e-2"
    with pytest.raises(InputError, match="0.01 is too high for model.width 3072 .* at most 0.0039"):
        load_recipe(path, [rate])
    assert load_recipe(path, [rate, "model.mup_base_width=256"]).training.learning_rate == 1e-2
