"""The arms: one description for recipes, plans, ledgers, parts, results, report and docs."""

from pathlib import Path
from typing import get_args

import pytest

from megasbp.errors import InputError
from megasbp.experiment.arms import (
    ARMS,
    DEFAULT_ARMS,
    Arm,
    Share,
    Writer,
    comparisons,
    is_seeded,
    written_arms,
)
from megasbp.experiment.budget import plan_arm, synthetic_need
from megasbp.experiment.comparisons import declared
from megasbp.experiment.disk import estimate_disk
from megasbp.experiment.parts import parts
from megasbp.experiment.plan import plan
from megasbp.experiment.recipe import Recipe, load_recipe
from megasbp.model.flops import flops_per_token

ROOT = Path(__file__).resolve().parents[2]
ALL = f"budget.arms={list(ARMS)}"


def demo(*overrides: str) -> Recipe:
    return load_recipe(ROOT / "configs" / "demo.toml", overrides)


def test_every_arm_of_a_recipe_is_described_and_no_other() -> None:
    assert list(ARMS) == list(get_args(Arm))
    assert {kind.writer for kind in ARMS.values()} == {*get_args(Writer), None}
    assert {kind.share for kind in ARMS.values()} == {*get_args(Share), None}
    assert all(kind.share == "synthetic" for kind in ARMS.values() if kind.writer is not None)


def test_a_recipe_that_names_no_arms_has_the_four_of_before() -> None:
    assert demo().budget.arms == DEFAULT_ARMS == ("baseline", "sbp", "random_pairs", "oracle")


def test_the_role_of_a_comparison_follows_from_its_hypothesis() -> None:
    roles = {one.name: one.role for one in declared(ARMS)}
    assert roles == {
        "H1 sbp vs baseline": "primary",
        "H2 sbp vs self_samples": "secondary",
        "H3 sbp vs random_pairs": "secondary",
        **{f"{arm} vs baseline": "descriptive" for arm in ARMS if arm not in {"baseline", "sbp"}},
        "sbp vs continuation": "descriptive",
        "sbp vs in_context": "descriptive",
        "seed_packing vs sbp": "descriptive",
        "second_round vs sbp": "descriptive",
    }
    assert {kind.comparison.name for kind in ARMS.values() if kind.comparison} <= set(roles)


def test_hypotheses_are_numbered_once_and_the_baseline_alone_is_compared_with_nothing() -> None:
    numbers = [one.hypothesis for one in comparisons() if one.hypothesis]
    assert numbers == [f"H{number}" for number in range(1, 1 + len(numbers))]
    assert [arm for arm, kind in ARMS.items() if kind.comparison is None] == ["baseline"]
    for arm, kind in ARMS.items():
        assert kind.comparison is None or arm in {kind.comparison.treatment, kind.comparison.reference}


def test_the_table_in_the_docs_is_the_one_of_the_code() -> None:
    rows = []
    for arm, kind in ARMS.items():
        compared = "" if kind.comparison is None else kind.comparison.name
        rows.append(f"| {arm} | {kind.trained_on} | {compared} | {kind.isolates} |")
    assert "\n".join(rows) in (ROOT / "docs" / "design.md").read_text(encoding="utf-8")


def test_synthetic_text_that_ends_early_leaves_unique_text_alone() -> None:
    tokens = {"unique": 130_000, "oracle": 900_000, "synthetic": 900 * 256, "seeded": 1_800 * 256}
    early, mixed = demo("budget.synthetic_until=0.5"), demo()
    planned = plan_arm("sbp", early, tokens)
    assert planned.phases == ({"unique": 300, "synthetic": 900}, {"unique": 1_200, "synthetic": 0})
    spread = plan_arm("sbp", mixed, tokens)
    assert spread.phases == (spread.samples,) == ({"unique": 1_500, "synthetic": 900},)
    assert (planned.samples, planned.tokens) == (spread.samples, spread.tokens)
    # Rows with their seeds are longer than the phase that was asked for.
    packed = plan_arm("seed_packing", early, tokens)
    assert packed.phases == ({"unique": 0, "seeded": 1_800}, {"unique": 600, "seeded": 0})
    for arm in ("baseline", "oracle"):
        assert plan_arm(arm, early, tokens) == plan_arm(arm, mixed, tokens)


@pytest.mark.parametrize("arm", written_arms(ARMS))
def test_every_arm_with_synthetic_text_has_the_plan_of_sbp(arm: str) -> None:
    recipe = demo()
    need = synthetic_need(recipe)
    # By hand: 614,400 / (8 x 256) = 300 steps of 8 rows; 0.375 of 2,400 rows is 900 rows of 256 tokens.
    assert need == 900 * 256
    planned = plan_arm(arm, recipe, {"unique": 130_000, "oracle": 900_000, "synthetic": need})
    assert planned.steps == 300
    assert planned.samples == {"unique": 1500, "synthetic": 900}
    assert planned.tokens == {"unique": 1500 * 256, "synthetic": need}
    assert planned.epochs["synthetic"] == 1.0
    assert planned.total_tokens == 614_400
    assert planned.synthetic_share == 0.375


def test_a_share_of_the_budget_is_a_share_of_everything_in_it() -> None:
    recipe, tokens = demo(), {"unique": 130_000, "oracle": 900_000}
    # By hand: half of 300 steps of 8 rows; half of 900 rows of synthetic text, of 1,700 seeded ones.
    planned = plan_arm("sbp", recipe, tokens | {"synthetic": 900 * 256}, budget_share=0.5)
    assert planned.steps == 150
    assert planned.samples == {"unique": 750, "synthetic": 450}
    assert planned.synthetic_share == 0.375
    assert plan_arm("oracle", recipe, tokens, budget_share=0.5).total_tokens == 307_200
    packed = {"seeded": 1700 * 256, "synthetic": 230_410}
    planned = plan_arm("seed_packing", recipe, tokens | packed, budget_share=0.5)
    assert planned.samples == {"unique": 350, "seeded": 850}
    assert planned.synthetic_tokens == 115_205
    assert plan_arm("baseline", recipe, tokens, budget_share=1e-6).steps == 1


def test_a_plan_counts_the_trials_of_shares_by_what_they_take() -> None:
    once = plan(demo("tuning.learning_rates=[1e-3]", "tuning.weight_decays=[0.1]"))
    tried = plan(
        demo(
            "tuning.learning_rates=[1e-3]",
            "tuning.weight_decays=[0.1, 0.2]",
            "tuning.budget_shares=[0.25, 0.5]",
        )
    )
    assert once["trials"]["flops"] == 0
    assert tried["arms"]["baseline"]["steps"] == 150
    assert tried["trials"]["settings"] == 4
    # Two decays with 0.25 and 0.5 of the budget, of which one with 0.5 is the arm itself.
    assert tried["trials"]["flops"] == pytest.approx(once["arms"]["baseline"]["flops"])


def test_neighbours_in_one_window_take_the_place_of_synthetic_text() -> None:
    tokens = {"unique": 130_000, "oracle": 900_000, "neighbours": 300 * 256}
    planned = plan_arm("in_context", demo(), tokens)
    assert planned.samples == {"unique": 1500, "neighbours": 900}
    assert planned.epochs["neighbours"] == 3.0
    assert planned.total_tokens == 614_400
    assert planned.synthetic_share == 0.0


def test_seed_packing_reads_all_its_rows_and_as_much_less_plain_text() -> None:
    # 1,700 rows with 230,410 synthetic tokens; the rest of them are seeds.
    tokens = {"unique": 130_000, "oracle": 900_000, "seeded": 1700 * 256, "synthetic": 230_410}
    planned = plan_arm("seed_packing", demo(), tokens)
    assert planned.samples == {"unique": 700, "seeded": 1700}
    assert planned.epochs["seeded"] == 1.0
    assert planned.total_tokens == 614_400
    assert planned.synthetic_share == 230_410 / 614_400


def test_more_seeded_rows_than_the_budget_are_refused() -> None:
    tokens = {"unique": 130_000, "oracle": 900_000, "seeded": 2400 * 256, "synthetic": 230_410}
    with pytest.raises(InputError, match="takes 614400 tokens with its seeds, the budget has 614400; lower"):
        plan_arm("seed_packing", demo(), tokens)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (['budget.arms=["baseline", "seed_packing"]'], "packs the text of 'sbp'"),
        ([ALL, "budget.synthetic_share=0.5"], "'seed_packing' reads a seed with .* set it below 0.5"),
    ],
)
def test_seed_packing_that_cannot_be_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        demo(*overrides)


def test_synthetic_text_is_seen_once_or_not_at_all() -> None:
    recipe = demo()
    tokens = {"unique": 130_000, "oracle": 900_000, "synthetic": synthetic_need(recipe) - 1}
    with pytest.raises(InputError, match="self_samples: needs 230400 synthetic tokens, each seen once"):
        plan_arm("self_samples", recipe, tokens)


def test_all_arms_have_the_same_tokens_and_steps() -> None:
    planned = plan(demo(ALL))["arms"]
    assert set(planned) == set(ARMS)
    assert {sum(arm["tokens"].values()) for arm in planned.values()} == {614_400}
    assert {arm["steps"] for arm in planned.values()} == {300}


def test_rows_that_are_packed_later_are_named_as_estimates() -> None:
    recipe = demo(ALL)
    planned = plan(recipe)["arms"]
    assert {arm: entry["estimated"] for arm, entry in planned.items() if entry["estimated"]} == {
        "in_context": ["neighbours"],
        "seed_packing": ["seeded"],
    }
    # Seeds as long as what is written from them.
    assert planned["seed_packing"]["tokens"]["seeded"] == 2 * synthetic_need(recipe)
    assert planned["seed_packing"]["synthetic_share"] == 0.375


def test_a_writer_without_seeds_reads_no_prompts_in_the_plan() -> None:
    recipe = demo('budget.arms=["baseline", "self_samples"]')
    own = plan(recipe)["stages"]["generation, at least"]
    need = synthetic_need(recipe)
    per_token = flops_per_token(recipe.model, recipe.training.sequence_length, causal=True) / 3
    assert own == {"tokens": need, "flops": need * per_token}
    seeded = plan(demo('budget.arms=["baseline", "sbp"]'))["stages"]["generation, at least"]
    assert seeded["tokens"] == need
    assert seeded["flops"] == pytest.approx(
        2 * need * flops_per_token(recipe.model, recipe.synthesizer.context, causal=True) / 3
    )


def test_disk_counts_the_text_of_every_writer() -> None:
    one, two = (
        estimate_disk(demo(f"budget.arms={arms}"))
        for arms in (["baseline", "sbp"], ["baseline", "sbp", "self_samples"])
    )
    assert two.synthetic == 2 * one.synthetic


def test_the_untuned_writer_needs_the_baseline_and_no_pairs() -> None:
    listed = {part.name: part for part in parts(demo(ALL, "seeds=[0, 1]"))}
    assert listed["seed-1/synthesis-self_samples"].needs == ("seed-1/train-baseline",)
    assert listed["seed-1/train-self_samples"].needs == ("seed-1/gates", "seed-1/synthesis-self_samples")
    assert "seed-1/quality-self_samples" in listed["seed-1/quality"].stages
    assert "seed-1/losses-self_samples" in listed["seed-1/losses"].stages


def test_an_unknown_arm_is_refused_with_those_there_are() -> None:
    with pytest.raises(InputError, match=r"budget\.arms.*self_samples"):
        demo('budget.arms=["baseline", "self_sample"]')


def test_only_arms_whose_writer_reads_seed_documents_are_seeded() -> None:
    assert [arm for arm in ARMS if is_seeded(arm)] == [
        "sbp",
        "random_pairs",
        "continuation",
        "second_round",
    ]


def test_the_continuation_synthesizer_needs_parts_of_documents_and_no_embeddings() -> None:
    listed = {part.name: part for part in parts(demo(ALL, "seeds=[0, 1]"))}
    assert listed["units-continuation"].needs == ("corpus",)
    assert listed["seed-1/pairs-continuation"].needs == ("units-continuation",)
    tuned = listed["seed-1/synthesizer-continuation"]
    assert set(tuned.needs) == {"seed-1/train-baseline", "seed-1/pairs-continuation"}
    assert tuned.kind == listed["seed-1/synthesizer-true"].kind
    assert listed["seed-1/synthesis-continuation"].needs == (tuned.name,)
    assert not any("continuation" in name for name in (part.name for part in parts(demo())))


def test_rows_are_packed_from_the_pairs_and_from_the_text_of_sbp() -> None:
    listed = {part.name: part for part in parts(demo(ALL))}
    assert listed["seed-0/packed-in_context"].needs == ("seed-0/pairs",)
    assert listed["seed-0/train-in_context"].needs == ("seed-0/packed-in_context",)
    assert listed["seed-0/packed-seed_packing"].needs == ("seed-0/synthesis-sbp",)
    assert listed["seed-0/train-seed_packing"].needs == ("seed-0/gates", "seed-0/packed-seed_packing")
    assert listed["seed-0/packed-seed_packing"].kind == listed["seed-0/packed-in_context"].kind == "data"


def test_a_second_round_starts_from_the_model_of_sbp_and_has_a_gate_of_its_own() -> None:
    listed = {part.name: part for part in parts(demo(ALL))}
    assert set(listed["seed-0/synthesizer-second"].needs) == {"seed-0/train-sbp", "seed-0/pairs"}
    assert listed["seed-0/synthesis-second_round"].needs == ("seed-0/synthesizer-second",)
    assert listed["seed-0/train-second_round"].needs == (
        "seed-0/gate-second_round",
        "seed-0/synthesis-second_round",
    )
    # The gates of the first round cannot wait for text that is written after them.
    assert "seed-0/quality-second_round" not in listed["seed-0/quality"].stages
    places = {part.name: place for place, part in enumerate(listed.values())}
    assert all(places[need] < places[part.name] for part in listed.values() for need in part.needs)
    with pytest.raises(InputError, match="'second_round' starts from the model of 'sbp'"):
        demo('budget.arms=["baseline", "second_round"]')


def test_continuation_is_refused_beside_a_source_that_is_the_same() -> None:
    with pytest.raises(InputError, match="sbp is that arm; leave one of them out"):
        demo(ALL, "pairing.source=continuation")


def test_the_continuation_tuning_is_planned_beside_the_others() -> None:
    without, beside = (
        plan(demo(f"budget.arms={arms}", "synthesizer.learning_rates=[1e-3, 3e-4]"))
        for arms in (["baseline", "sbp"], ["baseline", "sbp", "continuation"])
    )
    name = "synthesizer tuning, at most"
    # Both rates, one epoch, each token once in a beginning and once in what follows.
    extra = beside["stages"][name]["tokens"] - without["stages"][name]["tokens"]
    assert extra == 2 * 2 * 1 * without["corpus_tokens"]["unique"]
