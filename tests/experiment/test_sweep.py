"""Sweeps: which recipes a command line means, and what it refuses."""

from pathlib import Path

import pytest

from megasbp.errors import InputError
from megasbp.experiment import sweep
from megasbp.experiment.clean import clean
from megasbp.experiment.recipe import load_recipe
from megasbp.experiment.sweep import describe, read_sweep
from megasbp.storage import publish_json

DEMO = Path(__file__).resolve().parents[2] / "configs" / "demo.toml"


def test_every_combination_is_a_recipe_and_the_last_setting_varies_fastest():
    variants = read_sweep(
        DEMO, ["synthesis.temperature=[0.8, 1.0]", "seeds=[[0], [1, 2]]", "training.weight_decay=0.3"]
    )
    found = [
        (one.recipe.synthesis.temperature, one.recipe.seeds, one.recipe.training.weight_decay)
        for one in variants
    ]
    assert found == [(0.8, (0,), 0.3), (0.8, (1, 2), 0.3), (1.0, (0,), 0.3), (1.0, (1, 2), 0.3)]
    assert describe(variants[1].settings) == "synthesis.temperature=0.8 seeds=[1, 2]"
    assert len({one.folder for one in variants}) == 4
    assert {one.folder.parent for one in variants} == {variants[0].recipe.folder / "sweep"}


@pytest.mark.parametrize("jobs", [1, 3])
def test_each_combination_is_run_with_its_own_recipe_and_folder(jobs, monkeypatch, tmp_path):
    calls = []

    def alone(recipe, *rest, variant):
        calls.append((recipe.hash, variant, None, 1))

    def side_by_side(recipe, path, overrides, jobs, *rest, variant):
        # The workers read it for themselves.
        calls.append((load_recipe(path, overrides).hash, variant, recipe.hash, jobs))

    monkeypatch.setattr(sweep, "run_experiment", alone)
    monkeypatch.setattr(sweep, "run_side_by_side", side_by_side)
    variants = read_sweep(DEMO, ["synthesis.temperature=[0.8, 1.0]", "training.weight_decay=0.3"])
    written = []
    monkeypatch.setattr(sweep, "publish_json", lambda path, content: written.append(content))
    finished = []
    sweep.run_sweep(DEMO, variants, jobs, print, print, finished.append)
    hashes = [one.recipe.hash for one in variants]
    told = [None, None] if jobs == 1 else hashes
    assert calls == [
        (one, variant.folder, other, jobs) for one, other, variant in zip(hashes, told, variants, strict=True)
    ]
    assert finished == variants
    assert [one["settings"] for one in written[0]["recipes"]] == [one.settings for one in variants]


def test_words_are_tried_too():
    variants = read_sweep(DEMO, ['pairing.embedder=["tfidf", "minilm"]'])
    assert [one.recipe.pairing.embedder for one in variants] == ["tfidf", "minilm"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "nothing to sweep"),
        (["training.weight_decay=0.3"], "nothing to sweep"),
        (["synthesis.temperature=[]"], "needs different values"),
        (["synthesis.temperature=[1.0, 1.0]"], "needs different values"),
        (["synthesis.top_p=[0.9]", "synthesis.top_p=[0.8]"], "swept twice"),
        (["synthesis.top_p=[0.9, 1.5]"], r"synthesis.top_p=1.5: .*less than or equal to 1"),
        (["synthesis.top_q=[0.9]"], "did you mean 'top_p'"),
        ([f"seeds={[[number] for number in range(1001)]}"], "1,001 combinations; at most 1,000"),
    ],
)
def test_what_cannot_be_swept_is_named_before_anything_runs(overrides, message):
    with pytest.raises(InputError, match=message):
        read_sweep(DEMO, overrides)


def test_cleaning_keeps_what_a_sweep_uses(tmp_path):
    for name in ("train-kept-0123456789", "train-swept-0123456789", "train-old-0123456789"):
        publish_json(tmp_path / name / "manifest.json", {})
    publish_json(tmp_path / "used.json", {"folders": ["train-kept-0123456789"]})
    publish_json(tmp_path / "sweep" / "abc" / "used.json", {"folders": ["train-swept-0123456789"]})
    assert [path.name for path, _ in clean(tmp_path)] == ["train-old-0123456789"]
    assert (tmp_path / "sweep" / "abc" / "used.json").exists()
    assert (tmp_path / "train-swept-0123456789").exists()


def test_remains_of_a_kill_are_removed_inside_a_folder_and_with_it(tmp_path):
    publish_json(tmp_path / "train-kept-0123456789" / "manifest.json", {})
    publish_json(tmp_path / "used.json", {"folders": ["train-kept-0123456789"]})
    kept = tmp_path / "train-kept-0123456789" / "tensor.bin.partial-7"
    old = tmp_path / "train-old-0123456789" / "tensor.bin.partial-7"
    for path in (kept, old):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"12345")
    listed = [(old.parent, 5), (kept, 5)]
    assert clean(tmp_path, dry_run=True) == listed
    assert clean(tmp_path) == listed
    assert [path.name for path in tmp_path.glob("*-*")] == ["train-kept-0123456789"]
    assert not kept.exists()
