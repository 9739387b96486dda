"""Held-out loss by domain: the field is read once more, nothing else depends on it, sums are as by hand."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from megasbp.errors import InputError
from megasbp.experiment.corpus_stages import make_corpus, split_stage
from megasbp.experiment.domain_stages import OTHERS, UNNAMED, domain_results, domains_stage
from megasbp.experiment.parts import parts
from megasbp.experiment.recipe import Recipe, load_recipe
from megasbp.experiment.stages import StageResult, Workspace
from megasbp.experiment.statistics.losses import HeldOutLosses

DEMO = Path(__file__).resolve().parents[2] / "configs" / "demo.toml"


def write_corpus(path: Path, domains: list[str | None]) -> None:
    """A document of its own words for each domain; one without the field for None."""
    rows = [
        {"id": str(number), "title": f"title {number}", "text": " ".join(f"w{number}x{k}" for k in range(20))}
        | ({} if domain is None else {"source": domain})
        for number, domain in enumerate(domains)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def recipe_with(folder: Path, *overrides: str) -> Recipe:
    sizes = {"unique": 20, "oracle": 30, "validation": 10, "test": 40, "vocabulary_size": 300}
    return load_recipe(
        DEMO,
        [
            f"corpus.paths=['{folder / 'corpus.jsonl'}']",
            f"runs={folder / 'runs'}",
            *(f"corpus.{name}={size}" for name, size in sizes.items()),
            *overrides,
        ],
    )


def workspace(recipe: Recipe) -> Workspace:
    return Workspace(recipe.folder, lambda line: None)


def domains_of(recipe: Recipe) -> tuple[StageResult, StageResult]:
    """The split, and the domains of its test documents."""
    split = split_stage(recipe, workspace(recipe))
    found = domains_stage(recipe, workspace(recipe), split)
    assert found is not None
    return split, found


def test_each_test_document_has_its_domain(tmp_path: Path) -> None:
    domains = [("web", "book", None)[number % 3] for number in range(80)]
    write_corpus(tmp_path / "corpus.jsonl", domains)
    recipe = recipe_with(tmp_path, "corpus.domain_field=source")
    found = domains_of(recipe)[1]
    corpus = make_corpus(recipe, workspace(recipe))
    expected = [domains[int(name)] or UNNAMED for name in corpus.column("test", "id")]
    assert pq.read_table(found.folder / "domains.parquet")["domain"].to_pylist() == expected
    assert found.facts["domains"] == {name: expected.count(name) for name in sorted(set(expected))}


def test_asking_for_domains_makes_one_stage_more_and_changes_no_other(tmp_path: Path) -> None:
    write_corpus(tmp_path / "corpus.jsonl", ["web"] * 80)
    plain, asked = recipe_with(tmp_path), recipe_with(tmp_path, "corpus.domain_field=source")
    assert "domain_field" not in plain.content()["corpus"]
    assert domains_stage(plain, workspace(plain), split_stage(plain, workspace(plain))) is None
    before = make_corpus(plain, workspace(plain))
    after = make_corpus(asked, workspace(asked))
    assert [before.split.folder, before.datasets.folder] == [after.split.folder, after.datasets.folder]
    stages = {part.name: part.stages for part in parts(asked)}["corpus"]
    assert set(stages) - set(parts(plain)[0].stages) == {"domains"}


def test_another_field_of_the_same_text_is_another_stage(tmp_path: Path) -> None:
    recipe = recipe_with(tmp_path, "corpus.domain_field=source")
    write_corpus(tmp_path / "corpus.jsonl", ["web"] * 80)
    split, first = domains_of(recipe)
    write_corpus(tmp_path / "corpus.jsonl", ["book"] * 80)
    again, second = domains_of(recipe)
    assert split.digest == again.digest
    assert second.folder != first.folder
    assert second.facts["domains"] == {"book": 40}


@pytest.mark.parametrize(
    ("domains", "message"),
    [
        ([None] * 80, "'source', which no test document has; correct it"),
        ([str(number) for number in range(120)], "takes 60 values in 60 test documents, at most 50"),
    ],
)
def test_a_field_that_names_no_domains_is_refused(
    domains: list[str | None], message: str, tmp_path: Path
) -> None:
    write_corpus(tmp_path / "corpus.jsonl", domains)
    size = 60 if len(domains) == 120 else 40
    with pytest.raises(InputError, match=message):
        domains_of(recipe_with(tmp_path, "corpus.domain_field=source", f"corpus.test={size}"))


def test_shards_have_no_domains(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="corpus.domain_field needs text"):
        load_recipe(
            DEMO,
            [
                "corpus={shards='s', domain_field='source', unique=1, oracle=1, validation=1, test=1, "
                "source={name='a', licence='b', url='c'}}"
            ],
        )


def results_of(names: list[str], clusters: list[int], folder: Path) -> dict:
    """Ten bytes a document; the baseline loses 8 nats, sbp 6 on the web and 9 elsewhere."""
    workspace = Workspace(folder, lambda line: None)

    def make(folder: Path) -> None:
        pq.write_table(pa.table({"domain": names}), folder / "domains.parquet")

    units, labels = np.full(len(names), 10), np.array(clusters)
    sbp = np.where(np.array(names) == "web", 6.0, 9.0)
    held_out = {
        "baseline": HeldOutLosses({0: np.full(len(names), 8.0)}, units, labels),
        "sbp": HeldOutLosses({0: sbp}, units, labels),
    }
    return domain_results(held_out, workspace.stage("d", inputs={}, settings={}, make=make), 0, 500)


def test_losses_and_gains_of_each_domain_by_hand(tmp_path: Path) -> None:
    found = results_of(["web", "book", "web", "book", "web"], [0, 1, 2, 3, 4], tmp_path)
    assert list(found) == ["book", "web"]
    assert (found["web"]["documents"], found["web"]["bytes"]) == (3, 30)
    assert found["web"]["arms"]["baseline"]["value"]["estimate"] == pytest.approx(0.8)
    assert found["web"]["arms"]["baseline"]["gain"] is None
    assert found["web"]["arms"]["sbp"]["value"]["estimate"] == pytest.approx(0.6)
    assert found["web"]["arms"]["sbp"]["gain"]["estimate"] == pytest.approx(0.2)
    assert found["book"]["arms"]["sbp"]["gain"]["estimate"] == pytest.approx(-0.1)


def test_domains_too_small_for_an_interval_are_joined(tmp_path: Path) -> None:
    found = results_of(["web", "web", "book", "news", "news"], [0, 1, 2, 3, 3], tmp_path)
    assert {name: part["documents"] for name, part in found.items()} == {"web": 2, OTHERS: 3}


def test_what_is_too_small_even_together_is_left_out(tmp_path: Path) -> None:
    assert set(results_of(["web", "web", "book"], [0, 1, 2], tmp_path)) == {"web"}
