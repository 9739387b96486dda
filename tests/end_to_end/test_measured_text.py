"""What a run measures on its synthetic text, and a judge that is asked later, and fails on the way."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch

from megasbp.errors import InputError
from megasbp.experiment.method import Method
from megasbp.experiment.partial import publish_partial_results
from megasbp.experiment.recipe import Recipe, load_recipe
from megasbp.experiment.stages import Workspace
from megasbp.experiment.text_measures import measured
from megasbp.parallel.runtime import Runtime
from megasbp.report.text_schema import Judge

sys.path.insert(0, str(Path(__file__).parents[1] / "evaluation"))
from chat_stub import Reply, completion, serving


def results_of(run: Path) -> dict:
    return json.loads((run / "runs" / "small" / "report" / "results.json").read_text())


def test_texts_are_compared_with_real_text_in_every_measure(finished_run: Path) -> None:
    results = results_of(finished_run)
    relation = results["relation"]
    # Text without a seed has no relation to one.
    assert set(relation["kinds"]) == {"sbp", "random_pairs", "true", "unrelated"}
    # The corpus has 100 unique documents, of which partners and the unrelated one are no candidates.
    assert 80 < relation["candidates"] < 100
    assert relation["kinds"]["true"]["rank_10"]["low"] > relation["chance"]["rank_10"]
    arms = {"sbp", "random_pairs", "self_samples"}
    assert set(results["topics"]["sets"]) == {"real", *arms}
    assert results["topics"]["topics"] == 10
    assert set(results["quality"]) == {"real", *arms}
    sizes = {frozenset(one["near_duplicates_at"]) for one in results["quality"].values()}
    assert len(sizes) == 1, "all sets are compared at one size"
    assert results["quality"]["sbp"]["seed_copy"]["density"] is not None
    assert results["quality"]["self_samples"]["corpus_copy"]["density"] is not None
    assert set(results["contamination"]["tests"]) == {"validation", "test"}
    assert set(results["contamination"]["tests"]["test"]["shares"]) == {"unique", *arms}
    assert set(results["contamination"]["before_filters"]) == arms


def test_the_gate_of_copying_reads_the_figures_that_it_always_read(finished_run: Path) -> None:
    results = results_of(finished_run)
    (gate,) = [one for one in results["gates"]["0"] if one["name"] == "copying"]
    assert f"{100 * results['quality']['sbp']['corpus_copy']['mean_coverage']:.1f}%" in gate["finding"]


def test_a_judge_that_fails_on_the_way_is_asked_again_and_only_for_what_is_missing(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    # Of its own, for other tests look at every folder of the run.
    shutil.copytree(finished_run / "runs", tmp_path / "runs")

    def recipe_with(url: str) -> Recipe:
        return load_recipe(
            finished_run / "small.toml",
            [
                f"runs={tmp_path / 'runs'}",
                "quality.judge.kind=endpoint",
                "quality.judge.model=stub",
                f"quality.judge.url={url}",
                "quality.judge.documents=6",
                "quality.judge.attempts=1",
                "quality.judge.concurrent=1",
            ],
        )

    def judged(url: str) -> tuple[Method, dict]:
        recipe = recipe_with(url)
        workspace = Workspace(recipe.folder, announce=lambda line: None)
        method = Method(recipe, workspace, Runtime(0, 1, torch.device("cpu")))
        stages = {f"judge/{name}": one for name, one in method.seed(0).measures.judged.items()}
        return method, measured(recipe, 0, stages)["judge"]

    with (
        serving(*[completion("no")] * 8, Reply(500, b"out of memory")) as stub,
        pytest.raises(InputError, match=r"status 500 \(out of memory\)"),
    ):
        judged(stub.url)
    assert len(stub.requests) == 9
    # A report of what is complete asks nobody.
    path, missing = publish_partial_results(recipe_with(stub.url))
    assert missing == ["judge"] and "judge" not in json.loads(path.read_text())
    assert len(stub.requests) == 9
    with serving(completion("It is.\nyes")) as stub:
        method, found = judged(stub.url)
    # Two questions of real, sbp and random_pairs, one of self_samples and of unrelated pairs.
    assert len(stub.requests) == 8 * 6 - 8
    Judge.model_validate(found)
    rates = {name: one["rates"] for name, one in found["questions"].items()}
    assert set(rates["not_factual"]) == {"real", "sbp", "random_pairs", "self_samples"}
    assert set(rates["irrelevant"]) == {"real", "unrelated", "sbp", "random_pairs"}
    # The first eight answers were no: six of the first question, two of the second.
    assert rates["not_factual"]["real"]["estimate"] == 0
    assert rates["irrelevant"]["real"]["estimate"] == pytest.approx(4 / 6)
    assert rates["irrelevant"]["sbp"]["estimate"] == 1
    assert (found["name"], found["versions"], found["seed"]) == ("stub", ["stub-1 fp_7"], 0)
    # A judge's answers are found again, wherever its server stands now.
    with serving(Reply(500)) as stub:
        assert judged(stub.url)[1] == found
        path, missing = publish_partial_results(recipe_with(stub.url))
    assert (missing, json.loads(path.read_text())["judge"]) == ([], found)
    assert stub.requests == []
    prompts = [method.seed(0).measures.judged["sbp"].folder / f"{name}.jsonl" for name in rates]
    assert all(len(path.read_text().splitlines()) == 6 for path in prompts)
