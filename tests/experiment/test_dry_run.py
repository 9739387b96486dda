"""`megasbp train RECIPE --dry-run`."""

import json
import time
from pathlib import Path

import pytest

from megasbp.cli import main
from megasbp.errors import InputError
from megasbp.experiment.dry_run import dry_run
from megasbp.experiment.recipe import load_recipe

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
RECIPE = CONFIGS / "sbp_3b_200b.toml"


# One copy of the parameters, on however many GPUs.
SHARDED = "cluster.training.parallel.replicate=1"


def report(*overrides: str, gpus: tuple[int, ...] = (8,), memory: float = 80.0) -> dict:
    return dry_run(load_recipe(RECIPE, (SHARDED, *overrides)), gpus, memory)


def test_the_3b_recipe_is_estimated_from_8_to_512_gpus() -> None:
    counts = (8, 16, 32, 64, 128, 256)
    found = report("cluster.training.parallel.tensor=2", gpus=(*counts, 512))["gpus"]
    totals = [found[str(count)]["memory"]["total"] for count in counts]
    assert totals == sorted(totals, reverse=True)
    for count in counts:
        layout = found[str(count)]
        assert layout["layout"] == {"pp": 1, "dp_replicate": 1, "dp_shard": count // 2, "cp": 1, "tp": 2}
        # All ranks together hold every parameter, norms once for each rank of the tensor axis.
        assert 0 <= layout["parameters"] * count / 2.919e9 - 1 < 1e-3
        assert layout["flops"]["causal"] * count == pytest.approx(18.57e9 * 2048 * 4096, rel=1e-3)
    # With one micro-batch the parameters are not kept whole.
    assert found["512"]["micro_batches"] == 1
    assert found["512"]["memory"]["gathered"] < found["256"]["memory"]["gathered"]


def test_checkpointing_needs_less_memory_and_more_gathering() -> None:
    found = {
        mode: report("cluster.training.parallel.tensor=2", f"training.activation_checkpointing={mode}")[
            "gpus"
        ]["8"]
        for mode in ("none", "selective", "full")
    }
    none, selective, full = (found[mode]["memory"]["activations"] for mode in found)
    assert full < selective < none
    sent = {mode: sum(entry["sent"] for entry in layout["communication"]) for mode, layout in found.items()}
    assert sent["none"] < sent["selective"] == sent["full"]


def test_whether_it_fits_depends_on_the_gpu() -> None:
    needed = report()["gpus"]["8"]["memory"]["total"] / 2**30
    assert not report(memory=needed)["gpus"]["8"]["fits"]
    assert report(memory=needed / 0.89)["gpus"]["8"]["fits"]


@pytest.mark.parametrize(
    ("overrides", "gpus", "mend"),
    [
        (("cluster.training.parallel.tensor=8",), 12, "start 16"),
        (("training.micro_batch=8",), 512, "set global_batch to 4096"),
    ],
)
def test_an_impossible_layout_says_why_and_the_nearest_that_is_not(
    overrides: tuple[str, ...], gpus: int, mend: str
) -> None:
    layout = report(*overrides, gpus=(gpus,))["gpus"][str(gpus)]
    assert layout.keys() == {"problem"}
    assert mend in layout["problem"]


def test_the_command_prints_tables_or_json(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["train", str(RECIPE), SHARDED, "--dry-run", "--gpus", "8,9", "--memory", "141"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "fits a GPU of 141 GiB" in printed
    assert "dp_shard" in printed
    assert "9 GPU: impossible: cluster.training: " in printed
    assert main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == report(gpus=(8, 9), memory=141.0)


def test_a_dry_run_of_8_to_512_gpus_takes_less_than_a_minute(capsys: pytest.CaptureFixture[str]) -> None:
    counts = "8,16,32,64,128,256,512"
    arguments = [str(RECIPE), SHARDED, "cluster.training.parallel.tensor=2", "--gpus", counts]
    # Of this process alone: what else runs here does not count. The imports are some seconds more.
    started = time.process_time()
    assert main(["train", *arguments, "--dry-run", "--json"]) == 0
    assert time.process_time() - started < 50
    found = json.loads(capsys.readouterr().out)["gpus"]
    assert all(found[count]["memory"]["total"] > 0 for count in counts.split(","))


def test_the_layout_is_the_one_that_trains(capsys: pytest.CaptureFixture[str]) -> None:
    # 8 hosts of 8 GPUs, each host with a copy of the parameters.
    assert main(["train", str(RECIPE), "--dry-run", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["layout_setting"] == "cluster.training.parallel"
    assert printed["gpus"].keys() == {"64"}
    layout = printed["gpus"]["64"]
    assert layout["layout"] == {"pp": 1, "dp_replicate": 8, "dp_shard": 8, "cp": 1, "tp": 1}
    assert any(entry["axis"] == "dp_replicate" for entry in layout["communication"])


def test_training_still_needs_an_arm(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", str(RECIPE)]) == 2
    assert "--arm is missing" in capsys.readouterr().err


def test_a_pipeline_divides_the_blocks_and_waits() -> None:
    recipe = ("cluster.training.parallel.pipeline=4", "cluster.training.parallel.tensor=2")
    alone, piped = report(*recipe[1:])["gpus"]["8"], report(*recipe)["gpus"]["8"]
    # 256 micro-batches of 8 rows: (4 - 1) / (256 + 4 - 1).
    assert piped["pipeline"]["bubble_share"] == pytest.approx(3 / 259)
    assert sum(piped["pipeline"]["stages"]) < 26
    assert piped["memory"]["gathered"] < alone["memory"]["gathered"]
    assert {entry["axis"] for entry in piped["communication"]} == {"pp", "tp"}


def test_a_schedule_that_rules_checkpointing_out_is_refused_by_the_recipe_and_by_the_dry_run() -> None:
    schedule = "parallel.schedule=zbv_zero_bubble"
    mode = "training.activation_checkpointing=full"
    with pytest.raises(InputError, match=r"cluster.training: training.activation_checkpointing .*'none'"):
        load_recipe(RECIPE, ("cluster.training.parallel={pipeline=4, schedule='zbv_zero_bubble'}", mode))
    # Without the section [cluster] nothing is known of the ranks before they are named.
    recipe = load_recipe(CONFIGS / "demo.toml", ("parallel.pipeline=2", schedule, mode))
    assert "set it to 'none'" in dry_run(recipe, (2,), 80.0)["gpus"]["2"]["problem"]


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.stem)
def test_every_recipe_has_an_estimate(path: Path) -> None:
    recipe = load_recipe(path)
    (found,) = dry_run(recipe, (recipe.cluster.training.ranks,), 80.0)["gpus"].values()
    assert found["memory"]["total"] > 0
