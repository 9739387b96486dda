"""The stage of downstream tasks without lm-eval: what it depends on, how it goes on, what it costs."""

import json
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from task_files import write_task_files

from megasbp.errors import InputError
from megasbp.evaluation.downstream import harness
from megasbp.evaluation.downstream.scores import TaskScores
from megasbp.experiment import downstream_stages
from megasbp.experiment.downstream_cost import downstream_cost
from megasbp.experiment.downstream_results import ANSWER, average, measures
from megasbp.experiment.parts import parts
from megasbp.experiment.plan import plan
from megasbp.experiment.recipe import Recipe, load_recipe
from megasbp.experiment.run import require_inputs
from megasbp.experiment.stages import StageResult, Workspace
from megasbp.experiment.synthesizer_stages import pair_value_stage
from megasbp.model.flops import flops_per_token

DEMO = Path(__file__).resolve().parents[2] / "configs" / "demo.toml"
TASKS = ("megasbp_arc_easy", "megasbp_lambada")


def scores(correct: list[float], nats: list[float], size: int = 10) -> TaskScores:
    count = len(correct)
    return TaskScores(
        np.arange(count),
        {"acc": np.array(correct, dtype=np.float64)},
        np.array(nats, dtype=np.float64),
        np.full(count, size),
        np.full(count, 4),
        shots=0,
        cut=1,
    )


class StubHarness:
    """Scores that depend on the task's name; `fails_at` stands for a kill while that task is measured."""

    calls: list[str] = []  # noqa: RUF012
    fails_at: str | None = None

    def __init__(self, model: Path, config: Any, *rest: Any) -> None:
        assert (model / "weights").exists()
        self._config = config

    def tasks(self) -> dict[str, Any]:
        return dict.fromkeys(self._config.tasks)

    def score(self, name: str, task: Any) -> TaskScores:
        if name == self.fails_at:
            raise RuntimeError("killed")
        self.calls.append(name)
        return scores([1.0, 0.0], [float(len(name)), 3.0])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_task_files(tmp_path / "eval")


@pytest.fixture(autouse=True)
def stubs(monkeypatch: pytest.MonkeyPatch) -> type[StubHarness]:
    """Neither lm-eval nor a checkpoint is there."""

    def export(checkpoint: Path, folder: Path, tokenizer: Path) -> None:
        folder.mkdir(exist_ok=True)
        (folder / "weights").write_text(checkpoint.name)

    monkeypatch.setattr(harness, "Harness", StubHarness)
    monkeypatch.setattr(harness, "harness_version", lambda: "0.4.13")
    monkeypatch.setattr(downstream_stages, "export_checkpoint", export)
    monkeypatch.setattr(StubHarness, "calls", [])
    monkeypatch.setattr(StubHarness, "fails_at", None)
    return StubHarness


def recipe_with(data: Path, *overrides: str, tasks: tuple[str, ...] = TASKS) -> Recipe:
    section = f"evaluation.downstream={{tasks={json.dumps(tasks)}, data={json.dumps(str(data))}}}"
    return load_recipe(DEMO, [section, *overrides])


def stage(recipe: Recipe, root: Path) -> StageResult:
    """The stage of an arm that was trained to nothing."""
    workspace = Workspace(root, lambda line: None)
    trained, tokenizer = (
        workspace.stage(name, inputs={}, settings={}, make=lambda folder: {"last_checkpoint": "step-1"})
        for name in ("trained", "tokenizer")
    )
    context: Any = SimpleNamespace(
        recipe=recipe,
        workspace=workspace,
        corpus=SimpleNamespace(tokenizer=tokenizer),
        runtime=SimpleNamespace(device=torch.device("cpu")),
        name=lambda name: name,
    )
    return downstream_stages.downstream_stage(context, "sbp", trained)


def test_a_stage_holds_a_file_for_each_task_and_nothing_else(data: Path, tmp_path: Path) -> None:
    found = stage(recipe_with(data), tmp_path / "run")
    assert sorted(path.name for path in found.folder.iterdir()) == [
        "manifest.json",
        *(f"{task}.parquet" for task in TASKS),
    ]
    assert found.facts["harness"] == "lm-eval 0.4.13"
    about = {"documents": 2, "shots": 0, "chance": 0.25, "cut": 1, "acc": 0.5}
    assert found.facts["tasks"] == {task: about for task in TASKS}


def test_a_stage_that_was_killed_goes_on_to_equal_bytes(data: Path, tmp_path: Path, stubs: Any) -> None:
    recipe = recipe_with(data)
    whole = stage(recipe, tmp_path / "whole")
    stubs.fails_at = TASKS[1]
    with pytest.raises(RuntimeError, match="killed"):
        stage(recipe, tmp_path / "killed")
    stubs.fails_at = None
    stubs.calls.clear()
    found = stage(recipe, tmp_path / "killed")
    assert stubs.calls == [TASKS[1]]
    assert found.manifest == whole.manifest
    assert found.folder.name == whole.folder.name


def test_a_stage_depends_on_what_the_files_hold_and_not_on_where_they_lie(data: Path, tmp_path: Path) -> None:
    first = stage(recipe_with(data), tmp_path / "run").folder
    moved = data.rename(tmp_path / "moved")
    assert stage(recipe_with(moved), tmp_path / "run").folder == first
    assert recipe_with(moved).hash == recipe_with(data).hash
    with open(moved / "lambada_openai.jsonl", "a", encoding="utf-8") as file:
        file.write('{"context": "one", "continuation": "more"}\n')
    assert stage(recipe_with(moved), tmp_path / "run").folder != first


@pytest.mark.parametrize("setting", ["limit=2", "shots=1", "batch_size=2"])
def test_a_stage_depends_on_its_settings(setting: str, data: Path, tmp_path: Path) -> None:
    first = stage(recipe_with(data), tmp_path / "run").folder
    assert stage(recipe_with(data, f"evaluation.downstream.{setting}"), tmp_path / "run").folder != first


def test_without_tasks_a_recipe_is_what_it_was() -> None:
    recipe = load_recipe(DEMO)
    assert "downstream" not in recipe.content()["evaluation"]
    assert not [part.name for part in parts(recipe) if "downstream" in part.name]
    assert downstream_cost(recipe) == {}


@pytest.mark.parametrize("tasks", [(), TASKS])
def test_what_a_pair_is_worth_does_not_depend_on_tasks(tasks: tuple[str, ...], data: Path) -> None:
    class Recorder:
        def stage(self, name: str, *, inputs: Any, settings: dict[str, Any], make: Any) -> dict[str, Any]:
            return settings

    context: Any = SimpleNamespace(
        recipe=recipe_with(data, tasks=tasks), corpus=None, workspace=Recorder(), seed=0, name=str
    )
    nothing: Any = None
    settings: Any = pair_value_stage(context, nothing, nothing, nothing, nothing)
    assert set(settings["evaluation"]) == {"batch_size", "maximum_value_pairs", "bootstrap_resamples"}


def test_the_part_follows_every_training_and_the_report_waits_for_it(data: Path) -> None:
    listed = {part.name: part for part in parts(recipe_with(data, "seeds=[0, 1]"))}
    part = listed["seed-1/downstream"]
    assert part.kind == "inference"
    assert part.stages == tuple(
        f"seed-1/downstream-{arm}" for arm in ("baseline", "sbp", "random_pairs", "oracle")
    )
    assert set(part.needs) == {name.replace("downstream", "train") for name in part.stages}
    assert "seed-1/downstream" in listed["report"].needs


@pytest.mark.parametrize("name", ["lm-eval", "accelerate"])
def test_what_is_not_installed_is_said_before_anything_runs(
    name: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()

    def version(package: str) -> str:
        if package == name:
            raise metadata.PackageNotFoundError
        return "1"

    monkeypatch.setattr(harness.metadata, "version", version)
    with pytest.raises(InputError, match=rf"needs {name}; pip install '\.\[eval\]'"):
        downstream_stages.require_downstream(recipe_with(data))


def test_a_missing_file_is_said_before_anything_runs(data: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text('{"text": "one"}\n')
    recipe = recipe_with(data, f"corpus.paths=['{corpus}']", f"runs={tmp_path / 'runs'}")
    require_inputs(recipe, [])
    (data / "lambada_openai.jsonl").unlink()
    with pytest.raises(InputError, match=r"lambada_openai.jsonl: no such file, but task megasbp_lambada"):
        require_inputs(recipe, [])


def test_a_file_too_short_for_the_solved_examples_is_said_before_anything_runs(data: Path) -> None:
    downstream_stages.require_downstream(recipe_with(data, "evaluation.downstream.shots=2"))
    with pytest.raises(InputError, match=r"arc_easy.jsonl has 3 documents; set it to at most 2"):
        downstream_stages.require_downstream(recipe_with(data, "evaluation.downstream.shots=3"))


def test_the_plan_counts_requests_and_guesses_tokens(data: Path) -> None:
    recipe = recipe_with(data)
    (row,) = [entry for name, entry in plan(recipe)["stages"].items() if "downstream" in name]
    # Of four arms: 2 + 4 + 3 answers of arc_easy, three ends of lambada.
    assert row["requests"] == 4 * 12
    texts = {
        "Question: What shines?\nAnswer:": [" a stone", " the sun"],
        "Question: What swims?\nAnswer:": [" a fish", " an oak", " bread", " salt"],
        "Question: What rises?\nAnswer:": [" dough", " a rook", " moss"],
        "The baker kneads the dough and feeds the": [" oven"],
        "The queen takes the\nrook": [" king"],
        "A river\u2028meets the": [" delta"],
    }
    size = sum(len((context + answer).encode()) for context, answers in texts.items() for answer in answers)
    assert row["tokens"] == 4 * (12 + size / 4)
    forward = flops_per_token(recipe.model, recipe.training.sequence_length, causal=True) / 3
    assert row["flops"] == forward * row["tokens"]


def test_solved_examples_and_a_limit_change_the_cost(data: Path) -> None:
    def tokens(*overrides: str) -> float:
        (row,) = downstream_cost(recipe_with(data, *overrides)).values()
        return row["tokens"]

    assert tokens("evaluation.downstream.shots=1") > 1.5 * tokens()
    assert tokens("evaluation.downstream.limit=2") < tokens()


def test_the_plan_says_what_it_leaves_out(data: Path, tmp_path: Path) -> None:
    (name,) = downstream_cost(recipe_with(data, tasks=(*TASKS, "piqa")))
    assert name.endswith("those of lm-eval's own not counted")
    assert downstream_cost(recipe_with(tmp_path / "nowhere")) == {}


def test_a_gain_is_positive_where_an_arm_is_better_on_either_measure() -> None:
    found = measures(
        {
            "baseline": {0: scores([0, 0, 1, 1], [8, 8, 4, 4])},
            "sbp": {0: scores([1, 0, 1, 1], [6, 8, 4, 3])},
        },
        resamples=500,
    )
    accuracy, answer = found["acc"], found[ANSWER]
    assert accuracy["baseline"]["value"]["estimate"] == 0.5
    assert accuracy["baseline"]["gain"] is None
    assert accuracy["sbp"]["value"]["estimate"] == 0.75
    assert accuracy["sbp"]["gain"]["estimate"] == 0.25
    assert answer["baseline"]["value"]["estimate"] == pytest.approx(24 / 40)
    assert answer["sbp"]["gain"]["estimate"] == pytest.approx(3 / 40)
    assert accuracy["sbp"]["gain"]["label"] == "conditional on this run"
    low, high = (accuracy["sbp"]["value"][name] for name in ("low", "high"))
    assert low < 0.75 < high


def test_the_interval_of_a_gain_is_paired_by_document() -> None:
    """Documents differ by far more than arms do: only in pairs is the gain certain."""
    generator = np.random.default_rng(0)
    hard = generator.normal(50, 20, 400)
    better = hard - 1 + generator.normal(0, 1, 400)
    correct = [0.0] * 400
    found = measures(
        {"baseline": {0: scores(correct, hard.tolist())}, "sbp": {0: scores(correct, better.tolist())}},
        resamples=500,
    )[ANSWER]["sbp"]
    assert found["gain"]["low"] > 0
    # The error of a mean of 400 documents of 10 bytes each.
    assert found["gain"]["standard_error"] == pytest.approx(1 / 10 / 20, rel=0.15)
    assert found["value"]["standard_error"] == pytest.approx(20 / 10 / 20, rel=0.15)


def test_an_arm_that_gets_nothing_right_has_no_negative_zero() -> None:
    found = measures({"baseline": {0: scores([0, 0], [1, 2])}}, resamples=500)
    assert str(found["acc"]["baseline"]["value"]["estimate"]) == "0.0"


def test_seeds_are_averaged_and_widen_the_interval() -> None:
    arms = {
        "baseline": {0: scores([0, 1, 1], [5, 5, 5]), 1: scores([0, 1, 0], [5, 5, 5])},
        "sbp": {0: scores([1, 1, 1], [4, 4, 4]), 1: scores([0, 1, 0], [5, 5, 5])},
    }
    gain = measures(arms, resamples=500)["acc"]["sbp"]["gain"]
    assert gain["estimate"] == pytest.approx(1 / 6)
    assert gain["label"] == "over 2 seeds"
    one = measures({arm: {0: by_seed[0]} for arm, by_seed in arms.items()}, resamples=500)["acc"]["sbp"][
        "gain"
    ]
    assert gain["high"] - gain["low"] > one["high"] - one["low"]


def test_the_average_is_that_of_the_tasks_with_their_errors() -> None:
    rng = np.random.default_rng(0)

    def task(size: int, share: float) -> TaskScores:
        return scores((rng.random(size) < share).astype(float).tolist(), [1.0] * size)

    by_task = {
        "small": {arm: {0: task(200, share)} for arm, share in (("baseline", 0.9), ("sbp", 0.9))},
        "large": {arm: {0: task(2000, share)} for arm, share in (("baseline", 0.2), ("sbp", 0.5))},
    }
    found = average(by_task, resamples=4000)
    assert found is not None
    assert found["of"] == {"small": "acc", "large": "acc"}
    right = {
        name: {arm: one[0].metrics["acc"] for arm, one in arms.items()} for name, arms in by_task.items()
    }
    for arm in ("baseline", "sbp"):
        value = found["arms"][arm]["value"]
        assert value["estimate"] == pytest.approx(np.mean([right[name][arm].mean() for name in right]))
        # Of independent tasks, each with its own error; the tasks' distance from each other is none.
        errors = [right[name][arm].std() / len(right[name][arm]) ** 0.5 for name in right]
        assert value["standard_error"] == pytest.approx(np.hypot(*errors) / 2, rel=0.05)
    gain = found["arms"]["sbp"]["gain"]
    gains = [right[name]["sbp"] - right[name]["baseline"] for name in right]
    assert gain["estimate"] == pytest.approx(np.mean([one.mean() for one in gains]))
    errors = [one.std() / len(one) ** 0.5 for one in gains]
    assert gain["standard_error"] == pytest.approx(np.hypot(*errors) / 2, rel=0.05)
    assert found["arms"]["baseline"]["gain"] is None


def test_a_task_scored_by_length_counts_in_the_average() -> None:
    plain = scores([1.0, 0.0], [1.0, 2.0])
    normed = TaskScores(**{**vars(plain), "metrics": {"acc_norm": np.array([1.0, 1.0])}})
    found = average({"arc": {"baseline": {0: plain}}, "piqa": {"baseline": {0: normed}}}, resamples=100)
    assert found is not None
    assert found["of"] == {"arc": "acc", "piqa": "acc_norm"}
    assert found["arms"]["baseline"]["value"]["estimate"] == pytest.approx(0.75)


def test_one_task_has_no_average() -> None:
    one = {"baseline": {0: scores([1.0, 0.0], [1.0, 2.0])}}
    assert average({"only": one}, resamples=100) is None
