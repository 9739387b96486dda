"""Sweeps: which recipes a command line means, and what it refuses."""

import json
from pathlib import Path

import pytest

from megasbp.errors import InputError
from megasbp.experiment import sweep
from megasbp.experiment.clean import clean
from megasbp.experiment.recipe import load_recipe
from megasbp.experiment.sweep import describe, read_sweep
from megasbp.storage import publish_json, read_json

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
    variants = swept(tmp_path, "synthesis.temperature=[0.8, 1.0]", "training.weight_decay=0.3")
    finished = []
    place = sweep.run_sweep(
        DEMO, variants, jobs, print, print, lambda variant, at: finished.append((variant, read_json(at)))
    )
    hashes = [one.recipe.hash for one in variants]
    told = [None, None] if jobs == 1 else hashes
    assert calls == [
        (one, variant.folder, other, jobs) for one, other, variant in zip(hashes, told, variants, strict=True)
    ]
    # What is finished is listed before the next one begins.
    assert [variant for variant, _ in finished] == variants
    listed = [[one["settings"] for one in content["recipes"]] for _, content in finished]
    assert listed == [[variants[0].settings], [one.settings for one in variants]]
    assert [one["results"] for one in read_json(place)["recipes"]] == [
        f"{one.folder.name}/results.json" for one in variants
    ]


def swept(folder: Path, *overrides: str) -> list[sweep.Variant]:
    """A sweep of the demo's recipe with its runs below `folder`."""
    return read_sweep(DEMO, [f"runs={folder}", *overrides])


@pytest.fixture
def listed(monkeypatch, tmp_path):
    """Runs a sweep that trains nothing: settings of every combination in its sweep.json, and what it said."""

    def run(*overrides: str) -> tuple[list[dict], list[str]]:
        said = []
        variants = swept(tmp_path, *overrides)
        place = sweep.run_sweep(DEMO, variants, 1, said.append, print, lambda variant, at: None)
        return [one["settings"] for one in read_json(place)["recipes"]], said

    def publish(recipe, *rest, variant):
        publish_json(variant / "results.json", {})

    monkeypatch.setattr(sweep, "run_experiment", publish)
    return run


def test_a_later_sweep_adds_to_what_an_earlier_one_found(listed):
    temperatures = [{"synthesis.temperature": value} for value in (0.8, 1.0, 1.2)]
    assert listed("synthesis.temperature=[0.8, 1.0]")[0] == temperatures[:2]
    found, said = listed("synthesis.temperature=[1.2]")
    assert found == temperatures
    assert said == ["sweep 1 of 1: synthesis.temperature=1.2"]
    # One that is run again keeps its place.
    assert listed("synthesis.temperature=[0.8]")[0] == temperatures


def test_another_setting_is_another_column_of_the_same_table(listed):
    listed("synthesis.temperature=[0.8]", "training.weight_decay=0.3")
    found, _ = listed("synthesis.top_p=[0.5, 0.6]", "training.weight_decay=0.3")
    recipe = load_recipe(DEMO).synthesis
    assert found == [
        {"synthesis.temperature": temperature, "synthesis.top_p": top_p}
        for temperature, top_p in ((0.8, recipe.top_p), (recipe.temperature, 0.5), (recipe.temperature, 0.6))
    ]


def test_combinations_with_other_settings_or_without_results_leave_the_table_and_it_is_said(listed, tmp_path):
    listed("synthesis.temperature=[0.8, 1.0]")
    found, said = listed("synthesis.temperature=[1.2]", "training.weight_decay=0.3")
    assert found == [{"synthesis.temperature": 1.2}]
    assert said[0].startswith("sweep: 2 earlier combinations leave the table: other settings")
    (gone,) = swept(tmp_path, "synthesis.temperature=[1.2]", "training.weight_decay=0.3")
    gone.results.unlink()
    found, said = listed("synthesis.temperature=[1.1]", "training.weight_decay=0.3")
    assert found == [{"synthesis.temperature": 1.1}]
    assert said[0].startswith("sweep: 1 earlier combinations leave the table")


def test_settings_that_go_together_are_one_axis_of_tables(listed):
    axis = 'pairing=[{source="neighbours"}, {source="random", random_pairs=5000, search={engine="exact"}}]'
    first, second = read_sweep(DEMO, [axis, "pairing.maximum_per_seed=3"])
    recipe = load_recipe(DEMO).pairing
    assert (first.recipe.pairing.source, first.recipe.pairing.random_pairs) == ("neighbours", None)
    assert (second.recipe.pairing.source, second.recipe.pairing.random_pairs) == ("random", 5000)
    assert second.recipe.pairing.search.engine == "exact"
    # The section's other settings stay, and those of the command line too.
    assert {one.recipe.pairing.embedder for one in (first, second)} == {recipe.embedder}
    assert {one.recipe.pairing.maximum_per_seed for one in (first, second)} == {3}
    assert describe(second.settings) == (
        'pairing.source="random" pairing.random_pairs=5000 pairing.search.engine="exact"'
    )
    assert load_recipe(DEMO, second.overrides) == second.recipe
    found, _ = listed(axis)
    assert [one["pairing.random_pairs"] for one in found] == [None, 5000]


def test_an_empty_table_is_the_recipe_itself():
    first, second = read_sweep(DEMO, ["synthesis=[{}, {temperature=0.7, top_p=0.8}]"])
    assert first.recipe == load_recipe(DEMO)
    assert describe(first.settings) == "the recipe as it is"
    assert (second.recipe.synthesis.temperature, second.recipe.synthesis.top_p) == (0.7, 0.8)


@pytest.mark.parametrize(
    "word", ['say "so"', "back\\slash", "d\u00e9j\u00e0 \U0001f600", "line\nline", "\x7f", "true", "[1]"]
)
def test_words_arrive_as_they_were_given(word):
    # As TOML, which has no surrogates and no bare DEL.
    text = json.dumps(word, ensure_ascii=False).replace("\x7f", "\\u007f")
    (variant,) = read_sweep(DEMO, [f"pairing.embedder=[{text}]"])
    assert variant.settings == {"pairing.embedder": word}
    assert load_recipe(DEMO, variant.overrides).pairing.embedder == word


@pytest.mark.parametrize(
    ("override", "count"),
    [
        ("budget.synthetic_share=[0.1,0.2,0.375]", 3),
        ("pairing.minimum_similarity=[0.4,0.5]", 2),
        ("synthesis.temperature=[0.8,1.0]", 2),
        ("synthesis.seed_documents=[300,900]", 2),
        (
            'pairing=[{embedder="tfidf",minimum_similarity=0.2},{embedder="minilm"}]',
            2,
        ),
        ('pairing=[{source="neighbours"},{source="random",random_pairs=5000},{source="continuation"}]', 3),
        ("corpus.unique=[600,900]", 2),
        ("model=[{layers=4,width=128},{layers=6,width=192}]", 2),
    ],
)
def test_every_setting_of_the_method_is_an_axis(override, count):
    variants = read_sweep(DEMO, [override])
    assert len({one.recipe.hash for one in variants}) == len(variants) == count
    assert all(load_recipe(DEMO, one.overrides) == one.recipe for one in variants)


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
        (["synthesis.top_p=[0.9, 1.5]"], r"synthesis.top_p=1.5: .*less than or equal to 1, not 1.5$"),
        (["synthesis.top_q=[0.9]"], "did you mean 'top_p'"),
        (
            ['pairing.source=["neighbours","random"]', "pairing.random_pairs=5000"],
            r'^pairing.source="neighbours": .*random_pairs is for source .*; '
            r'settings that go together are one list of tables.*: pairing=\[\{source="neighbours"\},',
        ),
        (
            ['pairing.source=["neighbours","random"]', "pairing.random_pairs=[5000]"],
            r'^pairing.source="neighbours" pairing.random_pairs=5000: .*are one list of tables',
        ),
        (['pairing.source=["random"]'], r"^pairing.source=.*needs random_pairs.*are one list of tables"),
        (['pairing=[{source="list"}]'], r'^pairing.source="list": .*needs path'),
        (["synthesis=[{top_p=0.5},{top_p=0.5}]"], "needs different values"),
        (
            ["synthesis=[{top_p=0.5}]", "synthesis.top_p=[0.6]"],
            "synthesis.top_p is swept twice, by synthesis and synthesis.top_p; write one list of tables",
        ),
        (["synthesis=[{vllm={memory_share=0.5}}]", "synthesis.vllm=[1]"], "is swept twice, by synthesis and"),
        (
            ["synthesis=[{},{top_p=0.9}]", "synthesis.temperature=0.5", "synthesis.top_p=0.9"],
            "synthesis.top_p=0.9: has the results of the recipe as it is; leave one of them out",
        ),
        (["parallel.replicate=[1,2]"], "has the results of parallel.replicate=1"),
        (['name=["a","b"]'], 'name="b": a sweep is of one run\'s folder; leave name and runs alone'),
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
