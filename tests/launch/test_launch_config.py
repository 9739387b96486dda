"""What [cluster] refuses, and which layout a kind of stage gets."""

from pathlib import Path

import pytest

from megasbp.errors import InputError
from megasbp.experiment.recipe import Recipe, load_recipe

DEMO = Path(__file__).resolve().parents[2] / "configs" / "demo.toml"


def demo(*overrides: str) -> Recipe:
    return load_recipe(DEMO, overrides)


@pytest.mark.parametrize(
    "overrides, message",
    [
        (["cluster.data.nodes=2"], "cluster.data has 2 nodes x 1 processes, but such stages are one process"),
        (["cluster.inference.processes=8"], "spread the work by the section"),
        (["cluster.evaluation.parallel={tensor=2}"], "cluster.evaluation.parallel is set"),
        (["cluster.training.nodes=0"], "cluster.training.nodes"),
        (["cluster.trainin.nodes=2"], "did you mean 'training'"),
        (["cluster.training.node=2"], "did you mean 'nodes'"),
        # A layout is refused before any job is queued for it.
        (["cluster.training.nodes=3", "cluster.training.parallel={tensor=2}"], "cluster.training: parallel"),
        (["cluster.tuning.nodes=3"], "cluster.tuning: global_batch is"),
        (
            ["cluster.training.nodes=2", "cluster.training.parallel={pipeline=2}"],
            "cluster.training: parallel.schedule 1f1b over 2 ranks cannot run 1 micro-batches a step; "
            "set training.global_batch to 16, or training.micro_batch to 4",
        ),
        (
            ["cluster.tuning={nodes=2, parallel={pipeline=2}}"],
            "cluster.tuning: .* set synthesizer.global_batch to 16, or synthesizer.micro_batch to 4",
        ),
        (
            [
                "cluster.training={nodes=2, parallel={pipeline=2, schedule='zbv_zero_bubble'}}",
                "training.activation_checkpointing=full",
            ],
            "cluster.training: training.activation_checkpointing is 'full', .* set it to 'none'",
        ),
        (
            [
                "cluster.tuning={nodes=2, parallel={pipeline=2, schedule='dualpipe_v'}}",
                "training.compile=true",
            ],
            "cluster.tuning: training.compile is True, .* set it to False",
        ),
        # Nothing would be laid out by it.
        (
            [
                "parallel.tensor=2",
                "cluster.training.parallel={tensor=2}",
                "cluster.tuning.parallel={tensor=2}",
            ],
            "parallel is set, but cluster.training.parallel and cluster.tuning.parallel take its place",
        ),
    ],
)
def test_an_impossible_cluster_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        demo(*overrides)


def test_each_kind_of_stage_has_its_own_layout() -> None:
    recipe = demo(
        "parallel.tensor=2",
        "cluster.training={nodes=2}",
        "cluster.tuning={processes=2, parallel={context=2}}",
        "training.micro_batch=1",
    )
    assert recipe.layout("training").tensor == 2
    assert (recipe.layout("tuning").tensor, recipe.layout("tuning").context) == (1, 2)
    assert recipe.layout("evaluation").unit == 1


def test_where_a_recipe_runs_is_no_part_of_what_it_is() -> None:
    assert demo("cluster.evaluation.nodes=4").hash == demo().hash
