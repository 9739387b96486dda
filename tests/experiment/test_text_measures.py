"""What is measured on synthetic text: its settings, and the parts that make it."""

from pathlib import Path

import pytest
from task_files import write_task_files

from megasbp.errors import InputError
from megasbp.experiment.parts import parts
from megasbp.experiment.recipe import Recipe, load_recipe
from megasbp.experiment.run import require_inputs

DEMO = Path(__file__).resolve().parents[2] / "configs" / "demo.toml"


def demo(*overrides: str) -> Recipe:
    return load_recipe(DEMO, overrides)


def test_only_a_setting_that_is_no_default_is_part_of_the_recipes_content() -> None:
    assert "quality" not in demo().content()
    assert demo("quality.candidates=1000").hash == demo().hash
    changed = demo("quality.candidates=500")
    assert changed.content()["quality"] == {"candidates": 500}
    assert changed.hash != demo().hash


def test_a_missing_benchmark_is_named_before_the_run(tmp_path: Path) -> None:
    present = tmp_path / "corpus.jsonl"
    present.write_text('{"text": "a"}\n')
    recipe = demo(f'corpus.paths=["{present}"]', f'quality.benchmarks=["{tmp_path}/mmlu.jsonl"]')
    with pytest.raises(InputError, match=r"mmlu\.jsonl: no such file or folder; correct quality\.benchmarks"):
        require_inputs(recipe, [])


def test_a_benchmark_that_cannot_be_read_is_named_before_the_run(tmp_path: Path) -> None:
    corpus, data = tmp_path / "corpus.jsonl", write_task_files(tmp_path / "eval")
    corpus.write_text('{"text": "a"}\n')

    def recipe(benchmark: str, *overrides: str) -> Recipe:
        return demo(
            f'corpus.paths=["{corpus}"]',
            f"runs={tmp_path / 'runs'}",
            f'quality.benchmarks=["{benchmark}"]',
            *overrides,
        )

    with pytest.raises(InputError, match=r"none of its 2 rows has a text .*; set quality.benchmark_field"):
        require_inputs(recipe(str(data / "piqa.jsonl"), "quality.benchmark_field=answer"), [])
    with pytest.raises(InputError, match="names megasbp_piqa, which reads files; set evaluation.downstream"):
        require_inputs(recipe("megasbp_piqa"), [])
    require_inputs(recipe("megasbp_piqa", f"evaluation.downstream.data={data}"), [])


@pytest.mark.parametrize("names", ['["a/mmlu.jsonl", "b/mmlu.jsonl"]', '["a/test"]'])
def test_benchmarks_of_one_name_are_refused(names: str) -> None:
    with pytest.raises(InputError, match="give each another name"):
        demo(f"quality.benchmarks={names}")


def test_parts_wait_for_no_more_than_they_read_and_no_training_waits_for_them() -> None:
    listed = {part.name: part for part in parts(demo('budget.arms=["baseline", "sbp", "self_samples"]'))}
    synthesis = ("seed-0/synthesis-sbp", "seed-0/synthesis-self_samples")
    assert listed["seed-0/embed-sbp"].needs == ("embed", "seed-0/synthesis-sbp")
    assert listed["seed-0/embed-sbp"].kind == "inference"
    # Text without a seed shows none.
    assert listed["seed-0/relation"].needs == ("seed-0/pairs", "seed-0/embed-sbp")
    assert listed["seed-0/topics"].needs == ("seed-0/embed-sbp", "seed-0/embed-self_samples")
    assert listed["seed-0/duplicates"].needs == listed["seed-0/sharing"].needs == synthesis
    measuring = {"seed-0/relation", "seed-0/topics", "seed-0/duplicates", "seed-0/sharing"}
    waiting = {part.name for part in listed.values() if measuring & set(part.needs)}
    assert waiting == {"report"}


def test_without_an_embedder_or_synthetic_text_there_is_less_to_measure() -> None:
    def names(*overrides: str) -> set[str]:
        return {part.name.rpartition("/")[2] for part in parts(demo(*overrides))}

    without = names("pairing.embedder=none", "pairing.source=random", "pairing.random_pairs=10")
    assert not {"relation", "topics"} & without and {"duplicates", "sharing"} <= without
    assert not {"relation", "topics", "duplicates", "sharing"} & names('budget.arms=["baseline", "oracle"]')
